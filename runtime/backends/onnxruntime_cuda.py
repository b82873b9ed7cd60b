"""Stages in ONNX Runtime on an NVIDIA GPU, by its CUDA or its TensorRT provider; see `dlf.runtime.backends.gpu_choice`.

Arrays stay on the GPU from one stage to the next: ONNX Runtime reads and writes them where they are (IOBinding), on the stream on
which the kernels for the other steps run too (`dlf.runtime.gpu.steps`). This code has not run on a GPU yet.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

import numpy as np

from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime import progress
from dlf.runtime.backends import telemetry
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BackendFailedError, BackendMissingError
from dlf.runtime.files import cache_folder
from dlf.runtime.gpu.arrays import DeviceArray
from dlf.runtime.gpu.device import Device
from dlf.runtime.gpu.engines import DEFAULT_PROFILES, Profile, Size, choose_profile
from dlf.runtime.gpu.plan import batch_size
from dlf.runtime.gpu.stage_arrays import run_on_gpu
from dlf.runtime.gpu.steps import GPUSteps
from dlf.runtime.steps import Timed

with telemetry.off():
    import onnxruntime

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"

Providers = list[tuple[str, dict[str, str]]]  # with their options, the preferred one first

_log = logging.getLogger(__name__)


class ONNXRuntimeCUDABackend:
    """ONNX Runtime on a GPU; see `dlf.runtime.backends.Backend` and `dlf.runtime.steps.HasSteps`.

    Attributes:
        gpu: the GPU; its arrays, stream and memory.
    """

    on_cpu = False
    memory = "cuda"  # where arrays are, as ONNX Runtime names it

    def __init__(self, stream: int | None, ordinal: int, tensorrt: bool) -> None:
        """Open a GPU.

        Args:
            stream: `Device`'s `given_stream`.
            ordinal: the driver's number of the GPU.
            tensorrt: whether TensorRT runs what may be computed in TF32. It builds an engine for each stage, once, which takes
                minutes.

        Raises BackendMissingError: there is no such GPU, or the installed ONNX Runtime cannot use it.
        """
        self.name = "onnxruntime-tensorrt" if tensorrt else "onnxruntime"
        self._provider = TENSORRT if tensorrt else CUDA
        if (lack := missing_provider(tensorrt)) is not None:
            raise BackendMissingError(f"{lack}.")
        if preload := getattr(onnxruntime, "preload_dlls", None):
            with redirect_stdout(sys.stderr):  # where it tells of libraries that it does not find
                preload()  # CUDA's and cuDNN's libraries, where they are installed as Python packages
        if tensorrt:
            import_module("tensorrt")  # which loads the libraries that the provider is linked to
        # ONNX Runtime works in the GPU's primary context alone.
        self.gpu = Device(stream, ordinal, primary=True)
        self.device = self.gpu.name
        self.threads = None
        self.precision = "of the graph"
        self.versions = {"onnxruntime": onnxruntime.__version__, **self.gpu.versions}
        self._options = onnxruntime.SessionOptions()
        self._options.log_severity_level = 3  # errors
        # A stage's work stays on the stream when `run` returns: the next stage's comes after it.
        self._run_options = onnxruntime.RunOptions()
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def load(self, bundle: Bundle, stage: str) -> "CUDAStage":
        """See `dlf.runtime.backends.Backend`."""
        return CUDAStage(self, bundle, stage)

    def session(self, bundle: Bundle, stage: str, profile: Profile | None) -> Any:
        """Open a session of a stage, whose engine takes the sizes of a profile; without TensorRT it takes any.

        Raises BackendFailedError: the provider does not start.
        """
        providers = self.providers(bundle, stage, profile)
        session = onnxruntime.InferenceSession(bundle.stage(stage), self._options, providers=providers)
        used = session.get_providers()
        if used[0] != providers[0][0]:  # ONNX Runtime logs why, and takes the next
            raise BackendFailedError(
                f"ONNX Runtime could not start {providers[0][0]} and would use {used[0]}; see its message above. "
                "It needs the libraries that it was built with, CUDA's and cuDNN's: pip install 'dlf[onnxruntime-gpu]', "
                "or TensorRT's too: pip install 'dlf[onnxruntime-tensorrt]'."
            )
        return session

    def steps(self, bundle: Bundle, timed: Timed) -> GPUSteps:
        """Return the steps on the GPU."""
        return GPUSteps(self.gpu, bundle.entropy, EntropyTables.from_bytes(bundle.entropy_bytes()), timed)

    def close(self) -> None:
        """Release the GPU's memory, stream and context; the backend is of no use afterwards."""
        self.gpu.close()

    def profile(self, bundle: Bundle, stage: str, size: Size) -> Profile | None:
        """Return the sizes of the session that takes batches of this size; None where one session takes all.

        ONNX Runtime gives TensorRT's engines several profiles, but runs them with the first alone.
        """
        # Of fp32 that is not to be computed in TF32, TensorRT must be kept away: ONNX Runtime has no option for that.
        only_fp32 = bundle.manifest["stages"][stage]["precision"] == "fp32" and not bundle.allows_tf32(stage)
        if self._provider == CUDA or only_fp32:
            return None
        index = choose_profile(DEFAULT_PROFILES, size)
        return Profile.static(size) if index is None else DEFAULT_PROFILES[index]

    def providers(self, bundle: Bundle, stage: str, profile: Profile | None) -> Providers:
        """Return the providers of a stage: with a profile, TensorRT's is the first."""
        where = {"device_id": str(self.gpu.ordinal), "user_compute_stream": str(self.gpu.stream)}
        # By default TF32 is on, also where a bundle was not tested with it; and every new picture size is measured at length.
        tf32 = str(int(bundle.allows_tf32(stage)))
        cuda = (CUDA, {**where, "use_tf32": tf32, "cudnn_conv_algo_search": "HEURISTIC"})
        if profile is None:
            return [cuda, (CPU, {})]
        folder = cache_folder() / "onnxruntime" / bundle.stage_digest(stage) / "x".join(map(str, profile.max))
        folder.mkdir(parents=True, exist_ok=True)
        cache = {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1", "trt_engine_cache_path": str(folder)}
        shapes = profile_options(bundle.manifest["stages"][stage]["inputs"], profile)
        return [(TENSORRT, {**where, **cache, **shapes}), cuda, (CPU, {})]

    def run(self, session: Any, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> None:
        """Put a session's work on the stream: from arrays on the GPU to arrays on the GPU, all float32."""
        binding = session.io_binding()
        for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, array in arrays.items():
                bind(name, self.memory, self.gpu.ordinal, np.float32, array.shape, array.address)
        session.run_with_iobinding(binding, self._run_options)


class CUDAStage:
    """A stage: arrays on the GPU in, arrays on the GPU out; or NumPy arrays in, NumPy arrays out. See `backends.Stage`."""

    def __init__(self, backend: ONNXRuntimeCUDABackend, bundle: Bundle, name: str) -> None:
        self._backend = backend
        self._bundle = bundle
        self._name = name
        self._inputs, self._outputs = (bundle.manifest["stages"][name][ports] for ports in ("inputs", "outputs"))
        self._sessions: dict[Profile | None, Any] = {}
        self._session(Size(1, 1, 1))  # so that a provider that does not start is told now

    def _session(self, size: Size) -> Any:
        """Return the session for batches of a size, opened if need be."""
        profile = self._backend.profile(self._bundle, self._name, size)
        if profile not in self._sessions:
            if profile is not None:
                _log.info("Stage %s: TensorRT's engine for up to %d images of %d by %d tiles.", self._name, *profile.max)
            what = "session" if profile is None else "engine"
            with progress.step(f"opening the {what} of {progress.numbered(self._name)}"):
                self._sessions[profile] = self._backend.session(self._bundle, self._name, profile)
        return self._sessions[profile]

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Run it. Raises InvalidArgumentError, OutOfMemoryError; fails with whatever ONNX Runtime raises."""
        size = batch_size(self._inputs, {name: array.shape for name, array in inputs.items()})
        gpu = self._backend.gpu

        def run(arrays: dict[str, DeviceArray]) -> dict[str, DeviceArray]:
            outputs = {port["name"]: gpu.empty(size.shape(port["shape"]), np.float32) for port in self._outputs}
            self._backend.run(self._session(size), arrays, outputs)
            return outputs

        return run_on_gpu(gpu, inputs, run)


def missing_provider(tensorrt: bool) -> str | None:
    """Return what the installed ONNX Runtime lacks for a GPU, and what to do, in words; None if it lacks nothing."""
    provider = TENSORRT if tensorrt else CUDA
    if provider in onnxruntime.get_available_providers():
        return None
    remedy = f"pip uninstall onnxruntime; pip install 'dlf[onnxruntime-{'tensorrt' if tensorrt else 'gpu'}]'"
    return f"the installed ONNX Runtime {onnxruntime.__version__} has no {provider}; run: {remedy}"


def profile_options(ports: Sequence[Mapping[str, Any]], profile: Profile) -> dict[str, str]:
    """Return the options that name the sizes of TensorRT's engine.

    Args:
        ports: the stage's inputs, as the bundle's manifest has them.
        profile: the sizes.
    """
    return {
        f"trt_profile_{bound}_shapes": ",".join(
            f"{port['name']}:{'x'.join(map(str, size.shape(port['shape'])))}" for port in ports
        )
        for bound, size in zip(Profile._fields, profile, strict=True)
    }


def open_backend(
    threads: int | None, stream: int | None = None, ordinal: int = 0, tensorrt: bool = False
) -> ONNXRuntimeCUDABackend:
    """Open the backend; `threads` has no meaning here."""
    return ONNXRuntimeCUDABackend(stream, ordinal, tensorrt)
