"""Stages in ONNX Runtime on an NVIDIA GPU, by its CUDA or its TensorRT provider; see `dlf.runtime.backends.gpu_choice`.

Arrays stay on the GPU from one stage to the next: ONNX Runtime reads and writes them where they are (IOBinding), on the stream on
which the kernels for the other steps run too (`dlf.runtime.gpu.steps`). This code has not run on a GPU yet.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime.backends import telemetry
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BackendFailedError, BackendMissingError
from dlf.runtime.files import cache_folder
from dlf.runtime.gpu.arrays import DeviceArray
from dlf.runtime.gpu.device import Device
from dlf.runtime.gpu.engines import DEFAULT_PROFILES
from dlf.runtime.gpu.plan import batch_size
from dlf.runtime.gpu.stage_arrays import run_on_gpu
from dlf.runtime.gpu.steps import GPUSteps
from dlf.runtime.steps import Timed

with telemetry.off():
    import onnxruntime

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"

Providers = list[tuple[str, dict[str, str]]]  # with their options, the preferred one first


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
            tensorrt: whether TensorRT runs what it can. It builds an engine for each stage, once, which takes minutes.

        Raises BackendMissingError: there is no such GPU, or the installed ONNX Runtime cannot use it.
        """
        self.name = "onnxruntime-tensorrt" if tensorrt else "onnxruntime"
        self._provider = TENSORRT if tensorrt else CUDA
        if (lack := missing_provider(tensorrt)) is not None:
            raise BackendMissingError(f"{lack}.")
        if preload := getattr(onnxruntime, "preload_dlls", None):
            preload()  # CUDA's and cuDNN's libraries, where they are installed as Python packages
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
        providers = self.providers(bundle, stage)
        session = onnxruntime.InferenceSession(bundle.stage(stage), self._options, providers=providers)
        used = session.get_providers()
        if used[0] != providers[0][0]:  # ONNX Runtime logs why, and takes the next
            raise BackendFailedError(
                f"ONNX Runtime could not start {providers[0][0]} and would use {used[0]}; see its message above. "
                "It needs CUDA's and cuDNN's libraries: pip install 'dlf[onnxruntime-gpu]'."
            )
        return CUDAStage(self, session, bundle.manifest["stages"][stage])

    def steps(self, bundle: Bundle, timed: Timed) -> GPUSteps:
        """Return the steps on the GPU."""
        return GPUSteps(self.gpu, bundle.entropy, EntropyTables.from_bytes(bundle.entropy_bytes()), timed)

    def close(self) -> None:
        """Release the GPU's memory, stream and context; the backend is of no use afterwards."""
        self.gpu.close()

    def providers(self, bundle: Bundle, stage: str) -> Providers:
        """Return the providers of a stage."""
        where = {"device_id": str(self.gpu.ordinal), "user_compute_stream": str(self.gpu.stream)}
        # By default TF32 is on, also where a bundle was not tested with it; and every new picture size is measured at length.
        tf32 = str(int(bundle.allows_tf32(stage)))
        cuda = (CUDA, {**where, "use_tf32": tf32, "cudnn_conv_algo_search": "HEURISTIC"})
        if self._provider == CUDA:
            return [cuda, (CPU, {})]
        folder = cache_folder() / "onnxruntime" / bundle.stage_digest(stage)
        folder.mkdir(parents=True, exist_ok=True)
        cache = {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1", "trt_engine_cache_path": str(folder)}
        return [(TENSORRT, {**where, **cache, **profile_options(bundle.manifest["stages"][stage]["inputs"])}), cuda, (CPU, {})]

    def run(self, session: Any, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> None:
        """Put a session's work on the stream: from arrays on the GPU to arrays on the GPU, all float32."""
        binding = session.io_binding()
        for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, array in arrays.items():
                bind(name, self.memory, self.gpu.ordinal, np.float32, array.shape, array.address)
        session.run_with_iobinding(binding, self._run_options)


class CUDAStage:
    """A stage: arrays on the GPU in, arrays on the GPU out; or NumPy arrays in, NumPy arrays out. See `backends.Stage`."""

    def __init__(self, backend: ONNXRuntimeCUDABackend, session: Any, described: Mapping[str, Any]) -> None:
        """`described` is the stage's entry in the bundle's manifest."""
        self._backend = backend
        self._session = session
        self._inputs, self._outputs = described["inputs"], described["outputs"]

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Run it. Raises InvalidArgumentError, OutOfMemoryError; fails with whatever ONNX Runtime raises."""
        size = batch_size(self._inputs, {name: array.shape for name, array in inputs.items()})
        gpu = self._backend.gpu

        def run(arrays: dict[str, DeviceArray]) -> dict[str, DeviceArray]:
            outputs = {port["name"]: gpu.empty(size.shape(port["shape"]), np.float32) for port in self._outputs}
            self._backend.run(self._session, arrays, outputs)
            return outputs

        return run_on_gpu(gpu, inputs, run)


def missing_provider(tensorrt: bool) -> str | None:
    """Return what the installed ONNX Runtime lacks for a GPU, and what to do, in words; None if it lacks nothing."""
    provider = TENSORRT if tensorrt else CUDA
    if provider in onnxruntime.get_available_providers():
        return None
    remedy = "pip uninstall onnxruntime; pip install 'dlf[onnxruntime-gpu]'"
    return f"the installed ONNX Runtime {onnxruntime.__version__} has no {provider}; run: {remedy}"


def profile_options(ports: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the options that name the sizes of TensorRT's engines: those of `DEFAULT_PROFILES`.

    Args:
        ports: the stage's inputs, as the bundle's manifest has them.
    """
    options = {}
    for bound in ("min", "opt", "max"):
        shapes = [
            f"{port['name']}:{'x'.join(map(str, getattr(profile, bound).shape(port['shape'])))}"
            for profile in DEFAULT_PROFILES
            for port in ports
        ]
        options[f"trt_profile_{bound}_shapes"] = ",".join(shapes)
    return options


def open_backend(
    threads: int | None, stream: int | None = None, ordinal: int = 0, tensorrt: bool = False
) -> ONNXRuntimeCUDABackend:
    """Open the backend; `threads` has no meaning here."""
    return ONNXRuntimeCUDABackend(stream, ordinal, tensorrt)
