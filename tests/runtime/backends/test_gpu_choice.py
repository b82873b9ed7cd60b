"""The choice of a device and of a backend on a GPU, and what `dlf doctor` remembers for it."""

import json
from pathlib import Path

import pytest
from helpers import gpu as helpers_gpu

import dlf
from dlf.runtime import bundles
from dlf.runtime.backends import gpu_choice, proven
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.gpu import driver

CARD = "no GPU at all"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> helpers_gpu.FakeGPU:
    """A machine with a GPU and all backends for it."""
    gpu = helpers_gpu.FakeGPU()
    helpers_gpu.install(monkeypatch, gpu)
    monkeypatch.setattr(gpu_choice, "missing", lambda name, ordinal=0: driver.missing(ordinal))
    return gpu


@pytest.fixture
def found(toy_bundle: Path) -> dict[str, Bundle]:
    return bundles.open_all(toy_bundle)


@pytest.mark.parametrize(("device", "ordinal"), [(None, None), ("cpu", None), ("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)])
def test_devices(device, ordinal):
    assert gpu_choice.parse(device) == ordinal


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:x", "cpu:0", "cuda:-1", "CUDA"])
def test_other_words_are_refused(toy_bundle, device):
    with pytest.raises(dlf.InvalidArgumentError, match="no device"):
        dlf.Codec(toy_bundle, device=device)


def test_the_cpu_is_the_default(gpu, found):
    assert gpu_choice.choose(None, None, found) is None
    assert gpu_choice.choose("onnxruntime", None, found) is None
    assert gpu_choice.choose(None, "cpu", found) is None


def test_a_gpu_that_is_asked_for_is_used(gpu, found):
    chosen = gpu_choice.choose(None, "cuda", found)
    assert (chosen.name, chosen.device) == ("tensorrt", "cuda:0")
    assert "has not tested it yet" in chosen.why
    for name in gpu_choice.ON_GPU:
        assert gpu_choice.choose(name, "cuda", found).name == name
    assert gpu_choice.choose("tensorrt", None, found).device == "cuda:0"


def test_backends_that_do_not_run_there_are_refused(gpu, found):
    with pytest.raises(dlf.InvalidArgumentError, match="openvino does not run on a GPU"):
        gpu_choice.choose("openvino", "cuda", found)
    with pytest.raises(dlf.InvalidArgumentError, match="tensorrt runs only on a GPU"):
        gpu_choice.choose("tensorrt", "cpu", found)


def test_a_gpu_that_is_not_there_is_refused(gpu, found):
    with pytest.raises(dlf.BackendMissingError, match=r"tensorrt: .*finds no GPU 1, only 1.*; onnxruntime:"):
        gpu_choice.choose(None, "cuda:1", found)


def test_a_gpu_that_has_proved_itself_is_preferred_and_that_is_said(gpu, found):
    proven.remember(found["fp32"], "onnxruntime", CARD, True)
    chosen = gpu_choice.choose(None, None, found)
    assert (chosen.name, chosen.device, chosen.why) == ("onnxruntime", "cuda:0", f"dlf doctor has passed with it on {CARD}")
    assert gpu_choice.choose(None, "cuda", found) == chosen
    assert gpu_choice.choose(None, "cpu", found) is None
    assert gpu_choice.choose("openvino", None, found) is None
    proven.remember(found["fp32"], "tensorrt", CARD, True)
    assert gpu_choice.choose(None, None, found).name == "tensorrt"
    proven.remember(found["fp32"], "tensorrt", CARD, False)
    assert gpu_choice.choose(None, None, found).name == "onnxruntime"


def test_a_proof_holds_for_its_card_driver_bundle_and_version(gpu, found, bundle_copy, monkeypatch):
    proven.remember(found["fp32"], "tensorrt", CARD, True)
    (bundle_copy / "manifest.json").write_text(json.dumps({**json.loads((bundle_copy / "manifest.json").read_text()), "x": 1}))
    assert gpu_choice.choose(None, None, bundles.open_all(bundle_copy)) is None
    for owner, name, other in (
        (gpu, "cuDriverGetVersion", lambda out: setattr(out, "value", 12090)),
        (gpu, "cuDeviceGetName", lambda name, length, device: setattr(name, "value", b"another")),
        (dlf, "__version__", "9.9"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, other)
            assert gpu_choice.choose(None, None, found) is None
    assert gpu_choice.choose(None, None, found) is not None


def test_a_damaged_proof_is_none(gpu, found, cache):
    proven.remember(found["fp32"], "tensorrt", CARD, True)
    (file,) = (cache / "dlf" / "proven").iterdir()
    file.write_text("{")
    assert gpu_choice.choose(None, None, found) is None


def test_without_a_proof_the_driver_is_not_asked(found, monkeypatch):
    monkeypatch.setattr(driver, "_library", lambda: pytest.fail("this would call cuInit"))
    assert gpu_choice.choose(None, None, found) is None


def test_a_proof_is_of_no_use_without_the_gpu(gpu, found, monkeypatch):
    proven.remember(found["fp32"], "tensorrt", CARD, True)
    monkeypatch.setattr(gpu, "cuDeviceGetCount", lambda out: None)
    assert gpu_choice.choose(None, None, found) is None


def test_a_bundle_that_a_gpu_computes_slowly_is_told(bundle_copy, caplog):
    gpu_choice.warn_if_slow(Bundle(bundle_copy))
    assert "without tensor cores" in caplog.text and "--precision fp16" in caplog.text
    caplog.clear()
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    manifest["stages"] = {name: {**entry, "tf32": True} for name, entry in manifest["stages"].items()}
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    gpu_choice.warn_if_slow(Bundle(bundle_copy))
    (bundle_copy / "manifest.json").write_text(json.dumps({**manifest, "precision": "fp16"}))
    gpu_choice.warn_if_slow(Bundle(bundle_copy))
    assert caplog.text == ""
