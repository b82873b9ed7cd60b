"""The self-test passes a correct installation, and each fault fails its own check alone."""

import json

import numpy as np
import pytest
from helpers.bundle import make_toy_bundle, seal
from helpers.doctor import FakeBackend, add_references

from dlf.runtime.backends import Arrays
from dlf.runtime.backends.choice import open_backend
from dlf.runtime.bundles import references
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.doctor import selftest
from dlf.runtime.doctor.selftest import STAGES, Check, run
from dlf.runtime.libdlf import EntropyModel
from dlf.runtime.steps import HostSteps

CORE = ["entropy core: round trip", "entropy core: scalar code", "entropy core: stored file"]


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def each(work):
    return lambda outputs: {name: work(values) for name, values in outputs.items()}


def one_value(values):
    values = values.copy()
    values.flat[7] = np.inf
    return values


def refuse(_: Arrays) -> Arrays:
    raise RuntimeError("no kernel for this device")


WRONG = {
    "two per cent too large": each(lambda values: values * np.float32(1.02)),
    "a shifted picture": each(lambda values: np.roll(values, 5, axis=-1)),
    "one value that is not finite": each(one_value),
    "zeros": each(np.zeros_like),
    "another shape": each(lambda values: values[..., :-1]),
    "nothing": lambda _: {},
    "a refusal": refuse,
}


def test_good_bundle_passes(referenced, backend):
    checks = run(Bundle(referenced), open_backend(backend, 1))
    assert [check.name for check in checks] == [*CORE, *(f"stage: {stage}" for stage in STAGES)]
    assert failed(checks) == []


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_stage_fails_alone(referenced, stage, wrong):
    checks = run(Bundle(referenced), FakeBackend(**{stage: WRONG[wrong]}))
    assert failed(checks) == [f"stage: {stage}"]


def test_failure_tells_the_error(referenced):
    checks = run(Bundle(referenced), FakeBackend(adaptor=WRONG["two per cent too large"], generator=refuse))
    facts = {check.name: check.fact for check in checks}
    assert facts["stage: adaptor"] == "relative error 2.0e-02 (latent), of at most 1e-03"
    assert facts["stage: generator"] == "RuntimeError: no kernel for this device"


def test_tolerance_is_that_of_the_precision(referenced):
    off = each(lambda values: values * np.float32(1.005))
    assert failed(run(Bundle(referenced), FakeBackend("fp16", generator=off))) == []
    assert failed(run(Bundle(referenced), FakeBackend("fp32", generator=off))) == ["stage: generator"]
    manifest = json.loads((referenced / "manifest.json").read_text())
    manifest["stages"]["generator"]["precision"] = "fp16"
    manifest["stages"]["adaptor"]["precision"] = "fp3"
    seal(referenced, stages=manifest["stages"])
    assert failed(run(Bundle(referenced), FakeBackend("fp32", generator=off))) == ["stage: adaptor"]
    assert failed(run(Bundle(referenced), FakeBackend("of the graph", generator=off))) == ["stage: adaptor"]


def test_stage_of_other_weights_fails(referenced, tmp_path):
    """A bundle whose files are what its manifest says, but whose references are those of other weights."""
    other = make_toy_bundle(tmp_path / "other", seed=1)
    for name in ("analysis.onnx", "analysis.onnx.data"):
        (referenced / name).write_bytes((other / name).read_bytes())
    seal(referenced)
    assert failed(run(Bundle(referenced), FakeBackend())) == ["stage: analysis"]


def test_bundle_without_references_does_not_pass(toy_bundle):
    checks = run(Bundle(toy_bundle), FakeBackend())
    assert failed(checks) == ["reference outputs"]
    assert "no reference outputs in this bundle" in checks[-1].fact


def test_broken_references_do_not_pass(referenced):
    (referenced / references.NAME).write_bytes(b"something else")
    seal(referenced)
    assert failed(run(Bundle(referenced), FakeBackend())) == ["reference outputs"]


def test_entropy_core_is_tested_without_a_backend(referenced):
    assert [check.name for check in run(Bundle(referenced), None)] == CORE


def test_core_that_differs_from_the_scalar_code_fails(referenced, tmp_path, monkeypatch):
    other = (make_toy_bundle(tmp_path / "other", seed=1) / "entropy.bin").read_bytes()
    monkeypatch.setattr(selftest, "EntropyModel", lambda data: EntropyModel(other))
    checks = run(Bundle(referenced), None)
    assert failed(checks) == ["entropy core: scalar code"]
    assert "DLF_ISA=scalar" in checks[1].fact


def test_scalar_code_is_what_it_is_held_against(referenced, monkeypatch):
    opened = []
    monkeypatch.setattr(selftest, "EntropyModel", lambda data: opened.append(EntropyModel(data)) or opened[0])
    monkeypatch.delenv("DLF_ISA", raising=False)
    run(Bundle(referenced), None)
    assert [model.isa for model in opened] == ["scalar"]
    assert Bundle(referenced).entropy.isa == EntropyModel((referenced / "entropy.bin").read_bytes()).isa  # the variable is gone


def test_decoder_that_differs_from_the_exporters_fails(referenced):
    bundle, decode = Bundle(referenced), EntropyModel.decode_detail

    def decode_other(data: bytes, height: int, width: int) -> np.ndarray:
        return np.nextafter(decode(bundle.entropy, data, height, width), np.float32(9))

    bundle.entropy.decode_detail = decode_other
    assert failed(run(bundle, None)) == ["entropy core: round trip", "entropy core: stored file"]


class StepsThere(HostSteps):
    """Steps of a backend's own, the same as on the CPU."""


class WrongTokens(HostSteps):
    def encode(self, z, y):
        return [(tokens + (np.arange(tokens.size).reshape(tokens.shape) % 50 == 0), d) for tokens, d in super().encode(z, y)]


class WrongLatents(HostSteps):
    def encode(self, z, y):
        return super().encode(z, y + np.float32(1))


class BrokenStream(HostSteps):
    def encode(self, z, y):
        return [(tokens, detail[:-1]) for tokens, detail in super().encode(z, y)]


class WrongPadding(HostSteps):
    def pad(self, pixels):
        return np.roll(super().pad(pixels), 40, axis=2)


class WrongReconstruction(HostSteps):
    def decode(self, *arguments):
        found = super().decode(*arguments)
        return {**found, "y_hat": found["y_hat"] + np.float32(1)}


class WrongCrop(HostSteps):
    def crop(self, image, sizes, on_device):
        return [np.clip(picture.astype(int) + 2, 0, 255).astype(np.uint8) for picture in super().crop(image, sizes, on_device)]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (StepsThere, []),
        (WrongTokens, ["encoding"]),
        (WrongLatents, ["encoding"]),
        (BrokenStream, ["encoding"]),
        (WrongPadding, ["encoding"]),
        (WrongReconstruction, ["decoding"]),
        (WrongCrop, ["decoding"]),
    ],
)
def test_what_a_backend_does_between_the_stages_is_tested(referenced, monkeypatch, steps, expected):
    make = lambda self, bundle, timed: steps(bundle.entropy, timed)  # noqa: E731
    monkeypatch.setattr(FakeBackend, "steps", make, raising=False)
    checks = run(Bundle(referenced), FakeBackend())
    assert len(checks) == 9
    assert failed(checks) == [f"between the stages: {each}" for each in expected]


def test_exported_bundle_passes(tiny_bundle, backend):
    assert failed(run(Bundle(tiny_bundle), open_backend(backend, 1))) == []


def test_references_are_small(tiny_bundle):
    assert (tiny_bundle / references.NAME).stat().st_size < 50_000


def test_references_are_the_same_when_they_are_made_again(referenced):
    before = (referenced / references.NAME).read_bytes()
    (referenced / references.NAME).unlink()
    seal(referenced)
    assert (add_references(referenced) / references.NAME).read_bytes() == before
