import pytest

from dlf.benchmarks.gates import judge
from dlf.benchmarks.records import Coding, Gate, ImageResult, ModelResult, Speed, Timing


def model(bpps, lpips=0.3, seconds=None) -> ModelResult:
    """One image a rate; `seconds` of ours and of torch, encoding and decoding."""
    images = [ImageResult("a", "", 1, 1, {}, 0, [Coding("dlf", 1, bpp, {"LPIPS-Alex": lpips})]) for bpp in bpps]
    timings = [Timing(peer, way, 1, 1, [t], {}, 0, {}) for (peer, way), t in (seconds or {}).items()]
    speed = Speed("a", 1, 1, None, timings) if seconds else None
    return ModelResult("m", "m", "", "", "openvino", "CPU", "fp32", {}, images, [], speed)


SECONDS = {("openvino", "encode"): 1, ("torch", "encode"): 4, ("openvino", "decode"): 2, ("torch", "decode"): 3}


def test_no_bound_no_gate():
    assert judge([model([0.1])], None, None, None) == []


@pytest.mark.parametrize(("bound", "passed"), [(0.029, False), (0.031, True)])
def test_the_worst_models_mean_rate_is_judged(bound, passed):
    (gate,) = judge([model([0.01]), model([0.02, 0.04])], bound, None, None)
    assert gate == Gate("max-bpp", bound, pytest.approx(0.03), passed)


def test_lpips_is_judged():
    assert [gate.passed for gate in judge([model([0.1], lpips=0.3)], None, 0.3, None)] == [True]
    assert [gate.passed for gate in judge([model([0.1], lpips=0.3)], None, 0.29, None)] == [False]


@pytest.mark.parametrize(("bound", "passed"), [(1.5, True), (1.6, False)])
def test_the_slower_direction_is_judged(bound, passed):
    assert judge([model([0.1], seconds=SECONDS)], None, None, bound) == [Gate("min-speedup", bound, 1.5, passed)]


def test_a_model_without_results_fails():
    assert not any(gate.passed for gate in judge([model([])], 1.0, 1.0, 0.1))
