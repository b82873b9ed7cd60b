"""Stages in TensorRT or TensorRT-RTX, on an NVIDIA GPU.

Arrays stay on the GPU from one stage to the next, on one stream, and the kernels between the stages run there too
(`dlf.runtime.gpu.steps`). Engines come from the cache (`dlf.runtime.gpu.engines`); one that is missing is built at first use.
This code has been checked against TensorRT-RTX's interface, and has not run on a GPU yet.
"""

import itertools
import logging
import subprocess
import weakref
from collections import OrderedDict
from typing import Any

import numpy as np

from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime import progress
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BackendFailedError
from dlf.runtime.gpu import tensorrt_library
from dlf.runtime.gpu.arrays import DeviceArray
from dlf.runtime.gpu.device import Device
from dlf.runtime.gpu.engines import (
    Engine,
    EngineCache,
    Size,
    build_command,
    choose_profile,
    engine_key,
    gpu_name,
    read_runtime_cache,
    write_runtime_cache,
)
from dlf.runtime.gpu.plan import KEPT_SHAPES, batch_size
from dlf.runtime.gpu.stage_arrays import run_on_gpu
from dlf.runtime.gpu.steps import GPUSteps
from dlf.runtime.steps import Timed

_log = logging.getLogger(__name__)
_numbers = itertools.count()  # of contexts: a graph must not outlive the context that it was recorded from


class TensorRTBackend:
    """TensorRT in the precision of the bundle's graphs; see `dlf.runtime.backends.Backend` and `dlf.runtime.steps.HasSteps`.

    Attributes:
        gpu: the GPU; its arrays, stream and memory.
    """

    name = "tensorrt"
    on_cpu = False

    def __init__(self, threads: int | None, stream: int | None = None, ordinal: int = 0) -> None:
        """`threads` has no meaning here; `stream` is `Device`'s `given_stream`, `ordinal` the driver's number of the GPU."""
        self.threads = threads
        self._trt: Any = tensorrt_library.load()
        self.gpu = Device(stream, ordinal)
        self.device = self.gpu.name
        self.precision = "of the graph"  # strongly typed networks: the bundle says what each stage computes in
        self.versions = {self._trt.__name__: self._trt.__version__, **self.gpu.versions}
        self._logger = _logger(self._trt)
        self._runtime = self._trt.Runtime(self._logger)
        self._cache = EngineCache()
        # Scratch memory of the engines, which run one after the other; graphs are recorded again when its address changes.
        self._scratch: DeviceArray | None = None

    def load(self, bundle: Bundle, stage: str) -> "TensorRTStage":
        """See `dlf.runtime.backends.Backend`. An engine is loaded once a batch's size is known."""
        return TensorRTStage(self, bundle, stage)

    def steps(self, bundle: Bundle, timed: Timed) -> GPUSteps:
        """The steps between the stages."""
        return GPUSteps(self.gpu, bundle.entropy, EntropyTables.from_bytes(bundle.entropy_bytes()), timed)

    def close(self) -> None:
        """Release the GPU's memory, stream and context; the backend is of no use afterwards."""
        self._scratch = None
        self.gpu.close()

    def engine(self, bundle: Bundle, stage: str, size: Size) -> "LoadedEngine":
        """Load an engine of a stage that takes batches of this size; it is built if the cache has none.

        Raises BackendFailedError: it can be neither found nor built, or not be loaded.
        """
        gpu = gpu_name(self._trt, self.gpu.capability, self.gpu.name)
        key = engine_key(bundle, stage, self._trt, gpu)
        found = self._cache.find(key, size)
        if found.engine is None:
            command = build_command(bundle, gpu, size, stage)
            reasons = " ".join(found.reasons)
            _log.warning("%s Building stage %s for %d images of %d by %d tiles, once.", reasons, stage, *size)
            with progress.step(f"building the engine of {progress.numbered(stage)}"):
                built = subprocess.run(command, capture_output=True, text=True)
            found = self._cache.find(key, size)
            if found.engine is None:
                why = (built.stderr.strip().splitlines() or found.reasons or ("",))[-1]
                raise BackendFailedError(f"no engine for this batch, and `{' '.join(command)}` gave none: {why}")
        engine = self._runtime.deserialize_cuda_engine(found.plan)
        if engine is None:
            path, library = found.engine.path, self._trt.__name__
            raise BackendFailedError(f"{path} cannot be loaded by {library}; delete it to have it built again.")
        return LoadedEngine(self._trt, found.engine, engine)

    def context(self, loaded: "LoadedEngine") -> Any:
        """A context of an engine, without scratch memory of its own."""
        engine = loaded.engine
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if tensorrt_library.is_rtx(self._trt):
            config = engine.create_runtime_config()
            loaded.set_runtime_cache(config)
            config.set_execution_context_allocation_strategy(strategy)
            # A graph keeps the kernels that it was recorded with: they have to be the shape's own from the start.
            config.dynamic_shapes_kernel_specialization_strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
            return engine.create_execution_context(config)
        return engine.create_execution_context(strategy)

    def is_capturable(self, context: Any) -> bool:
        """Whether a context's work can be recorded now; TensorRT-RTX may still be compiling for it."""
        return not tensorrt_library.is_rtx(self._trt) or bool(context.is_stream_capturable(self.gpu.stream))

    def dtype(self, engine: Any, tensor: str) -> np.dtype[Any]:
        """The type of an engine's tensor."""
        dtype: np.dtype[Any] = np.dtype(self._trt.nptype(engine.get_tensor_dtype(tensor)))
        return dtype

    def outputs(self, engine: Any) -> list[str]:
        """The names of an engine's outputs."""
        names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
        return [name for name in names if engine.get_tensor_mode(name) == self._trt.TensorIOMode.OUTPUT]

    def scratch(self, nbytes: int) -> DeviceArray:
        """Memory of at least this size, which all engines share."""
        if self._scratch is None or self._scratch.nbytes < nbytes:
            self._scratch = None  # so that its memory serves others
            self._scratch = self.gpu.empty((nbytes,), np.uint8)
        return self._scratch


class LoadedEngine:
    """An engine in memory, and the kernels that TensorRT-RTX compiles for it, which are kept beside the engine's file.

    Attributes:
        engine: TensorRT's object.
        profiles: the sizes that it takes.
    """

    def __init__(self, library: Any, found: Engine, engine: Any) -> None:
        self.engine = engine
        self.profiles = found.profiles
        self._library = library
        self._found = found
        self._kernels: Any = None

    def set_runtime_cache(self, config: Any) -> None:
        """Let a context use the kernels that were compiled before; all contexts of the engine share them."""
        if self._kernels is None:
            self._kernels = config.create_runtime_cache()
            known = read_runtime_cache(self._found)
            if known is not None and not self._kernels.deserialize(known):
                _log.info("The kernels kept beside %s are of another driver or GPU; they are compiled again.", self._found.path)
        _require(config.set_runtime_cache(self._kernels), "take a runtime cache")

    def keep_kernels(self) -> None:
        """Write the compiled kernels, once a context has run for the first time."""
        if self._kernels is not None:
            write_runtime_cache(self._found, bytes(self._kernels.serialize()))


class TensorRTStage:
    """A stage: arrays on the GPU in, arrays on the GPU out; or NumPy arrays in, NumPy arrays out. See `backends.Stage`."""

    def __init__(self, backend: TensorRTBackend, bundle: Bundle, name: str) -> None:
        self._backend = backend
        self._bundle = bundle
        self._name = name
        self._ports = bundle.manifest["stages"][name]["inputs"]
        self._engines: list[LoadedEngine] = []
        # By size. A context whose shapes change would spoil the graphs that were recorded from it, so that each size has one.
        self._contexts: OrderedDict[Size, _Context] = OrderedDict()

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Run it. Raises InvalidArgumentError, BackendFailedError, OutOfMemoryError."""
        size = batch_size(self._ports, {name: array.shape for name, array in inputs.items()})
        return run_on_gpu(self._backend.gpu, inputs, lambda arrays: self._context(size).run(arrays))

    def _context(self, size: Size) -> "_Context":
        """The context of a size, made if need be; of the sizes the last `KEPT_SHAPES` are kept."""
        if size not in self._contexts:
            engine, profile = self._engine(size)
            self._contexts[size] = _Context(self._backend, self._name, size, engine, profile)
            while len(self._contexts) > KEPT_SHAPES:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(size)
        return self._contexts[size]

    def _engine(self, size: Size) -> tuple[LoadedEngine, int]:
        """An engine for a size and the profile to use: one that is loaded, or the cache's best."""
        for loaded in self._engines:
            if (profile := choose_profile(loaded.profiles, size)) is not None:
                return loaded, profile
        self._engines.append(self._backend.engine(self._bundle, self._name, size))
        return self._engine(size)


class _Context:
    """An engine set up for batches of one size."""

    def __init__(self, backend: TensorRTBackend, stage: str, size: Size, loaded: LoadedEngine, profile: int) -> None:
        self._backend = backend
        self._stage = stage
        self._loaded = loaded
        self._engine = loaded.engine
        self._context = backend.context(loaded)
        self._has_run = self._told = False
        _require(self._context.set_optimization_profile_async(profile, backend.gpu.stream), "set the profile")
        self._outputs: dict[str, tuple[int, ...]] = {}  # name -> shape, once the inputs' shapes are known
        self._scratch_bytes = 0
        self._addresses: dict[str, int] = {}
        self._name, self._size = f"context {next(_numbers)}", size
        weakref.finalize(self, backend.gpu.replays.forget, self._name, size)

    def run(self, inputs: dict[str, DeviceArray]) -> dict[str, DeviceArray]:
        """The outputs, which are there once the work on the stream is done."""
        gpu = self._backend.gpu
        if not self._outputs:
            self._set_shapes({name: array.shape for name, array in inputs.items()})
        outputs = {name: gpu.empty(shape, np.float32) for name, shape in self._outputs.items()}
        scratch = self._backend.scratch(self._scratch_bytes)
        arrays = {**inputs, **outputs}
        addresses = {name: array.address for name, array in arrays.items()} | {"": scratch.address}
        if addresses != self._addresses:  # to set the same again would be a change to what a graph was recorded from
            for name, array in arrays.items():
                _require(self._context.set_tensor_address(name, array.address), f"take the address of {name}")
            self._context.set_device_memory(scratch.address, scratch.nbytes)
            self._addresses = addresses
        gpu.replay(self._name, self._size, [*arrays.values(), scratch], self._enqueue, self._is_capturable)
        if not self._has_run:
            self._loaded.keep_kernels()
            self._has_run = True
        return outputs

    def _set_shapes(self, shapes: dict[str, tuple[int, ...]]) -> None:
        context, names = self._context, self._backend.outputs(self._engine)
        for name, shape in shapes.items():
            _require(context.set_input_shape(name, shape), f"take {name} of shape {shape}")
        if unknown := context.infer_shapes():
            raise BackendFailedError(f"the engine wants more inputs: {', '.join(unknown)}.")
        for name in (*shapes, *names):
            if (dtype := self._backend.dtype(self._engine, name)) != np.float32:
                raise BackendFailedError(f"the engine has {name} in {dtype}, not float32; export the bundle again.")
        self._scratch_bytes = context.update_device_memory_size_for_shapes()
        self._outputs = {name: tuple(context.get_tensor_shape(name)) for name in names}

    def _enqueue(self) -> None:
        _require(self._context.execute_async_v3(self._backend.gpu.stream), "run")

    def _is_capturable(self) -> bool:
        capturable = self._backend.is_capturable(self._context)
        if not capturable and not self._told:
            _log.info("Stage %s runs without a CUDA graph on %d images of %d by %d tiles.", self._stage, *self._size)
            self._told = True
        return capturable


def _require(done: bool, what: str) -> None:
    if not done:
        raise BackendFailedError(f"TensorRT could not {what}; its own messages are in the log.")


def _logger(library: Any) -> Any:
    """TensorRT's messages in Python's log."""
    severity = library.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.DEBUG,
        severity.VERBOSE: logging.DEBUG,
    }

    class Logger(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity != library.ILogger.Severity.VERBOSE:
                _log.log(levels[severity], "%s: %s", library.__name__, message)

    return Logger()


open_backend = TensorRTBackend
