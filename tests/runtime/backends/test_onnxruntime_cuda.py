"""ONNX Runtime on a GPU: whole files through its IOBinding over host memory (`helpers.gpu`) and, where there is one, on a GPU."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers import gpu as helpers_gpu
from helpers.bundle import CHANNELS, DIM
from helpers.onnxruntime_on_gpu import OnHost, describe_ports, install_with_providers

import dlf
from dlf.runtime.backends import gpu_choice, onnxruntime_cuda
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.gpu.engines import DEFAULT_PROFILES, Profile, Size
from dlf.runtime.steps import HasSteps


@pytest.fixture
def bundle(bundle_copy: Path) -> Path:
    return describe_ports(bundle_copy)


@pytest.fixture
def fake(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> helpers_gpu.FakeGPU:
    return install_with_providers(monkeypatch, bundle)


@pytest.fixture(params=["fake", pytest.param("gpu", marks=helpers_gpu.ON_GPU)])
def codecs(request: pytest.FixtureRequest, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dlf.Codec, dlf.Codec]:
    """One on the CPU, and one on the GPU."""
    plain = dlf.Codec(bundle, "onnxruntime", threads=1, device="cpu")
    if request.param == "fake":
        request.getfixturevalue("fake")
        monkeypatch.setattr(onnxruntime_cuda, "ONNXRuntimeCUDABackend", OnHost)
    return plain, dlf.Codec(bundle, "onnxruntime", device="cuda")


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def test_files_and_pictures_are_those_of_the_cpu(codecs):
    plain, codec = codecs
    assert isinstance(codec.backend, HasSteps)
    pictures = [photograph(*size) for size in [(20, 30), (300, 256), (256, 256), (1, 1)]]
    files = codec.encode_many(pictures)
    assert files == [plain.encode(picture) for picture in pictures]
    for got, data in zip(codec.decode_many(files), files, strict=True):
        np.testing.assert_array_equal(got, plain.decode(data))


def test_arrays_stay_on_the_gpu_between_the_stages(fake, bundle, monkeypatch):
    """The host waits for the symbols when it encodes; and for three steps' CDF indexes and the picture when it decodes."""
    monkeypatch.setattr(onnxruntime_cuda, "ONNXRuntimeCUDABackend", OnHost)
    codec = dlf.Codec(bundle, "onnxruntime", device="cuda:0")
    before = fake.synchronisations
    data = codec.encode(photograph(200, 300))
    assert fake.synchronisations == before + 1
    codec.decode(data)
    assert fake.synchronisations == before + 5


def test_closing_the_codec_frees_the_gpu(fake, bundle, monkeypatch):
    monkeypatch.setattr(onnxruntime_cuda, "ONNXRuntimeCUDABackend", OnHost)
    with dlf.Codec(bundle, "onnxruntime", device="cuda") as codec:
        data = codec.encode(photograph(10, 10))
    assert (fake.streams, fake.pinned, fake.stack) == (set(), {}, [])
    with pytest.raises(dlf.BackendFailedError, match="was closed"):
        codec.decode(data)


def test_the_application_s_own_context_is_not_used(fake, bundle):
    """ONNX Runtime works in the primary one alone."""
    fake.stack.append(helpers_gpu.PYCUDAS)
    with OnHost(None, 0, False).gpu:
        assert fake.stack[-1] == helpers_gpu.PRIMARY


def test_the_providers_get_the_gpu_and_the_stream(fake, bundle):
    backend = onnxruntime_cuda.open_backend(None)
    (name, cuda), (fallback, _) = backend.providers(Bundle(bundle), "analysis", None)
    assert (name, fallback) == (onnxruntime_cuda.CUDA, onnxruntime_cuda.CPU)
    assert cuda["device_id"] == "0" and cuda["user_compute_stream"] == str(helpers_gpu.STREAM)
    assert cuda["use_tf32"] == "0"
    allow_tf32(bundle)
    assert backend.providers(Bundle(bundle), "analysis", None)[0][1]["use_tf32"] == "1"
    assert backend.profile(Bundle(bundle), "analysis", Size(9, 9, 9)) is None


@pytest.fixture
def with_tensorrt(fake, monkeypatch, tmp_path) -> onnxruntime_cuda.ONNXRuntimeCUDABackend:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    return onnxruntime_cuda.open_backend(None, tensorrt=True)


def test_tensorrt_gets_a_cache_and_the_sizes_of_one_profile(with_tensorrt, bundle, tmp_path):
    allow_tf32(bundle)
    folders = set()
    for profile in DEFAULT_PROFILES:
        (name, options), (second, _), _ = with_tensorrt.providers(Bundle(bundle), "synthesis", profile)
        assert (name, second) == (onnxruntime_cuda.TENSORRT, onnxruntime_cuda.CUDA)
        assert Path(options["trt_engine_cache_path"]).is_relative_to(tmp_path)
        assert options["trt_engine_cache_enable"] == "1"
        folders.add(options["trt_engine_cache_path"])
        n, h, w = profile.max
        assert options["trt_profile_max_shapes"] == f"z_hat:{n}x{h}x{w}x{DIM}x32,y_hat:{n}x{CHANNELS}x{8 * h}x{8 * w}"
        assert options["trt_profile_min_shapes"] == f"z_hat:1x1x1x{DIM}x32,y_hat:1x{CHANNELS}x8x8"
    assert len(folders) == len(DEFAULT_PROFILES)


def test_tensorrt_gets_a_session_for_each_profile(with_tensorrt, bundle, monkeypatch):
    """ONNX Runtime runs engines with their first profile alone."""
    allow_tf32(bundle)
    opened = []
    monkeypatch.setattr(with_tensorrt, "session", lambda bundle, stage, profile: opened.append(profile))
    monkeypatch.setattr(with_tensorrt, "run", lambda session, inputs, outputs: None)
    stage = with_tensorrt.load(Bundle(bundle), "analysis")
    assert opened == [DEFAULT_PROFILES[0]]
    for n, h, w in [(1, 8, 8), (2, 1, 1), (16, 3, 3), (1, 2, 3), (2, 1, 4), (2, 1, 4)]:
        stage({"image": np.zeros((n, 3, 256 * h, 256 * w), np.float32)})
    assert opened == [*DEFAULT_PROFILES, Profile.static(Size(2, 1, 4))]


def test_tensorrt_is_kept_from_fp32_that_has_not_passed_in_tf32(with_tensorrt, bundle):
    """It would compute in TF32."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    assert with_tensorrt.profile(Bundle(bundle), "analysis", Size(1, 1, 1)) is None
    manifest["stages"]["analysis"]["precision"] = "fp16"
    path.write_text(json.dumps(manifest))
    assert with_tensorrt.profile(Bundle(bundle), "analysis", Size(1, 1, 1)) == DEFAULT_PROFILES[0]


def test_tensorrt_is_loaded_for_the_provider(fake, bundle, monkeypatch):
    """Its package opens the libraries that the provider is linked to; without the package the backend is missing."""
    with monkeypatch.context() as patch:
        patch.setattr(gpu_choice, "find_spec", lambda name: None if name == "tensorrt" else name)
        with pytest.raises(
            dlf.BackendMissingError, match=r"TensorRT is not installed; run: pip install 'dlf\[onnxruntime-tensorrt\]'"
        ):
            dlf.Codec(bundle, "onnxruntime-tensorrt")
    monkeypatch.setattr(gpu_choice, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(dlf.BackendFailedError, match=r"onnxruntime-tensorrt does not start .*tensorrt"):
        dlf.Codec(bundle, "onnxruntime-tensorrt")


def test_what_onnx_runtime_prints_is_not_put_among_the_data(fake, monkeypatch, capsys):
    """It prints the libraries that it does not find; `dlf encode -` writes a file to standard output."""
    monkeypatch.setattr(onnxruntime_cuda.onnxruntime, "preload_dlls", lambda: print("Failed to load libcufft.so"), raising=False)
    onnxruntime_cuda.open_backend(None)
    assert capsys.readouterr() == ("", "Failed to load libcufft.so\n")


def allow_tf32(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    for entry in manifest["stages"].values():
        entry["tf32"] = True
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_provider_that_does_not_start_is_an_error_not_the_cpu(fake, bundle, monkeypatch):
    """ONNX Runtime logs it and takes the next provider. Here it is one that the installed package does not have."""

    class Session:
        def __init__(self, *arguments, **options):
            pass

        def get_providers(self):
            return [onnxruntime_cuda.CPU]

    monkeypatch.setattr(onnxruntime_cuda.onnxruntime, "InferenceSession", Session)
    backend = onnxruntime_cuda.open_backend(None)
    with pytest.raises(dlf.BackendFailedError, match=r"could not start CUDAExecutionProvider.*onnxruntime-gpu"):
        backend.load(Bundle(bundle), "analysis")


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-tensorrt"])
def test_the_package_for_the_cpu_is_refused(fake, bundle, monkeypatch, name):
    monkeypatch.setattr(onnxruntime_cuda.onnxruntime, "get_available_providers", lambda: [onnxruntime_cuda.CPU])
    monkeypatch.setattr(gpu_choice, "find_spec", lambda name: name)
    with pytest.raises(dlf.BackendMissingError, match=r"has no \w+ExecutionProvider; run: pip uninstall onnxruntime"):
        dlf.Codec(bundle, name, device="cuda")
    with pytest.raises(dlf.BackendMissingError, match="has no"):
        onnxruntime_cuda.open_backend(None, tensorrt=name in gpu_choice.GPU_ONLY)
