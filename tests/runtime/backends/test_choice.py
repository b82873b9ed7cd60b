import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.bundle import LoneStage, save_stage
from onnx import helper

import dlf
from dlf.runtime import libdlf
from dlf.runtime.backends import choice
from dlf.runtime.backends.choice import installed, open_backend
from dlf.runtime.gpu import driver


@pytest.fixture
def linear_stage(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A stage y = x @ w with 4 MB of weights in a file of their own, and w."""
    w = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32)
    path = tmp_path / "linear.onnx"
    model = save_stage(path, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 1024]}, {"y": ["n", 1024]}, w=w)
    onnx.save(model, path, save_as_external_data=True, location="linear.onnx.data")
    return path, w


def test_stage_runs_named_arrays_of_any_size(backend, linear_stage):
    path, w = linear_stage
    stage = open_backend(backend, 1).load(LoneStage(path), "")
    for n in (3, 1, 40):
        x = np.random.default_rng(n).normal(size=(n, 1024)).astype(np.float32)
        outputs = stage({"x": x})
        assert list(outputs) == ["y"]
        assert outputs["y"].dtype == np.float32
        assert np.allclose(outputs["y"], x.astype(np.float64) @ w, atol=1e-3)  # bfloat16 would be off by 0.1


def test_outputs_stay_when_the_stage_runs_again(backend, linear_stage):
    path, _ = linear_stage
    stage = open_backend(backend, 1).load(LoneStage(path), "")
    first = stage({"x": np.ones((2, 1024), np.float32)})["y"]
    before = first.copy()
    stage({"x": np.zeros((2, 1024), np.float32)})
    assert np.array_equal(first, before)


@pytest.mark.parametrize(
    ("dot_products", "here", "there", "best"),
    [
        (True, ["openvino", "onnxruntime"], ["fp32"], "openvino"),
        (True, ["openvino", "onnxruntime"], ["fp32", "int8"], "openvino"),
        (True, ["onnxruntime"], ["fp32", "int8"], "onnxruntime"),
        (False, ["openvino", "onnxruntime"], ["fp32"], "openvino"),
        (False, ["openvino", "onnxruntime"], ["fp32", "int8"], "onnxruntime"),
        (False, ["openvino"], ["fp32", "int8"], "openvino"),
        (False, ["onnxruntime"], ["fp8"], "onnxruntime"),
    ],
)
def test_fastest_backend_for_the_processor_and_the_bundles_is_chosen(monkeypatch, dot_products, here, there, best):
    monkeypatch.setattr(libdlf, "has_int8_dot_products", lambda: dot_products)
    monkeypatch.setattr(choice, "find_spec", lambda name: name in here)
    name, reason = choice.choose(None, there)
    assert name == best
    assert reason == f"the fastest of {', '.join(here)} on a processor {'with' if dot_products else 'without'} int8 dot products"


@pytest.mark.parametrize("dot_products", [True, False])
def test_every_backend_has_its_order_of_all_precisions(monkeypatch, dot_products):
    monkeypatch.setattr(libdlf, "has_int8_dot_products", lambda: dot_products)
    assert len(set(choice.order())) == len(choice.order())
    for name in choice.INSTALL:
        assert sorted(choice.precisions(name)) == ["fp16", "fp32", "int8"]
    assert choice.precisions("openvino")[0] == ("int8" if dot_products else "fp32")


def test_a_codec_on_the_cpu_does_not_touch_cuda(toy_bundle, backend, monkeypatch):
    """Whoever calls cuInit and then forks cannot use CUDA in the children."""
    monkeypatch.setattr(driver, "_library", lambda: pytest.fail("this would call cuInit"))
    dlf.Codec(toy_bundle)
    dlf.Codec(toy_bundle, backend)


def test_codec_opens_the_chosen_backend(toy_bundle, monkeypatch):
    for here in installed():
        monkeypatch.setattr(choice, "find_spec", lambda name, here=here: name == here)
        assert dlf.Codec(toy_bundle).backend.name == here


def test_missing_backend_says_what_to_install(toy_bundle, monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    for name, command in (("openvino", r"dlf\[cpu\]"), ("onnxruntime", r"dlf\[onnxruntime\]"), (None, r"dlf\[cpu\].*dlf\[onnx")):
        with pytest.raises(dlf.BackendMissingError, match=f"pip install '{command}"):
            dlf.Codec(toy_bundle, name)


def test_backend_that_does_not_start_is_refused(toy_bundle, backend, monkeypatch):
    def fail(name: str) -> None:
        raise ImportError("libfoo.so is missing")

    monkeypatch.setattr(choice, "import_module", fail)
    with pytest.raises(dlf.BackendFailedError, match=r"does not start.*libfoo\.so"):
        dlf.Codec(toy_bundle, backend)


def test_unknown_backend_is_refused():
    with pytest.raises(dlf.InvalidArgumentError, match="openvino, onnxruntime"):
        open_backend("tensorflow", None)


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_below_one_are_refused(threads):
    with pytest.raises(dlf.InvalidArgumentError, match="threads"):
        open_backend(installed()[0], threads)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")  # of the thread that releases pages
def test_openvino_takes_paths_that_are_no_text(toy_bundle, tmp_path):
    pytest.importorskip("openvino")
    folder = shutil.copytree(toy_bundle, tmp_path / os.fsdecode(b"mod\xe9l"))
    with dlf.Codec(folder, "openvino", threads=1) as codec:
        assert codec.decode(codec.encode(np.zeros((8, 8, 3), np.uint8))).shape == (8, 8, 3)
