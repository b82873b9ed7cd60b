"""A simulated GPU: CUDA's driver over host memory, with the kernels' NumPy references in place of their code.

Work is done as it is put on the stream, or recorded where a graph is captured, with the addresses that it had then, as on a
GPU. What dlf makes of the interface can be tested so; that a GPU does the same cannot.
"""

import ctypes
import hashlib
import importlib
import json
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dlf.kernels import launches, symbols_reference, vq_lookup_reference
from dlf.kernels.entropy_bin import BLOCKS, EntropyTables
from dlf.kernels.entropy_params_reference import entropy_params
from dlf.runtime import images
from dlf.runtime.gpu import allocator, cubins
from dlf.runtime.gpu import driver as cuda_driver

NO_GPU = cuda_driver.missing()
# Marks of what runs on a GPU.
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(NO_GPU is not None, reason=f"no GPU to run on: {NO_GPU}")]
ALIGNMENT = 512
GIVEN_STREAM = 77
STREAM = 42  # the first that is made
PRIMARY, PYCUDAS = 1001, 2002  # contexts: the GPU's own, and one that an application has made with pycuda
DTYPES = {"u8": np.uint8, "i8": np.int8, "u16": np.uint16, "i16": np.int16, "i32": np.int32, "i64": np.int64, "fp32": np.float32}


def at(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """The array at an address."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * nbytes).from_address(address), dtype).reshape(shape)


class FakeGPU:
    """What happens on the device. Its methods `cuNAME` are the driver's functions: they are given what a C function would be.

    Attributes:
        synchronisations: how often the host has waited.
        launches: names of the kernels, in the order in which they were executed, in graphs or not.
        waits: (stream, other) of each wait between streams.
        graphs: of each graph the times it was launched; None once it is released.
        stack: the contexts on the thread's stack.
        limit: bytes of memory; allocations beyond fail.
        allocated, pinned: address -> memory, on the GPU and on the host.
        elsewhere: address -> number of the GPU, of memory that is on another than 0.
        retained: how often the primary context is retained.
        streams, modules: those that exist.
        fails: the name of a function -> the error that it returns.
    """

    def __init__(self, tables: EntropyTables | None = None, capability: tuple[int, int] = (8, 9)) -> None:
        self.tables = tables
        self.capability = capability
        self.synchronisations = 0
        self.launches: list[str] = []
        self.waits: list[tuple[int, int]] = []
        self.graphs: list[int | None] = []
        self.stack: list[int] = []
        self.limit = 1 << 40
        self.allocated: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.retained = 0
        self.elsewhere: dict[int, int] = {}
        self.streams: set[int] = set()
        self.modules: set[int] = set()
        self.fails: dict[str, int] = {}
        self._recording: list[Callable[[], None]] | None = None
        self._recorded: dict[int, list[Callable[[], None]]] = {}
        self._events: dict[int, int] = {}
        self._functions: dict[int, dict[str, Any]] = {}
        self._granted: dict[int, int] = {}
        self._handles = 5000
        self._prior: dict[str, Any] = {}

    @property
    def pushed(self) -> int:
        """Contexts on the stack."""
        return len(self.stack)

    def do(self, work: Callable[[], None]) -> None:
        """Work on the stream."""
        assert self.stack, "no context is current"
        if self._recording is None:
            work()
        else:
            self._recording.append(work)

    def new_handle(self) -> int:
        self._handles += 1
        return self._handles

    # What a GPU there is, and its contexts.

    def cuInit(self, flags: int) -> None:  # noqa: N802
        assert flags == 0

    def cuDriverGetVersion(self, out: Any) -> None:  # noqa: N802
        out.value = 13010

    def cuDeviceGetCount(self, out: Any) -> None:  # noqa: N802
        out.value = 1

    def cuDeviceGet(self, out: Any, ordinal: int) -> int:  # noqa: N802
        out.value = 7
        return 0 if ordinal == 0 else 101

    def cuDeviceGetAttribute(self, out: Any, attribute: int, device: int) -> None:  # noqa: N802
        assert device == 7
        out.value = self.capability[cuda_driver.COMPUTE_CAPABILITY.index(attribute)]

    def cuDeviceGetName(self, name: Any, length: int, device: int) -> None:  # noqa: N802
        assert device == 7
        ctypes.memmove(name, b"no GPU at all\0", 14)

    def cuDevicePrimaryCtxGetState(self, device: int, flags: Any, active: Any) -> None:  # noqa: N802
        assert device == 7
        active.value = PRIMARY in self.stack or self.retained > 0

    def cuDevicePrimaryCtxRetain(self, out: Any, device: int) -> None:  # noqa: N802
        assert device == 7
        self.retained += 1
        out.value = PRIMARY

    def cuDevicePrimaryCtxRelease_v2(self, device: int) -> None:  # noqa: N802
        assert device == 7 and self.retained
        self.retained -= 1

    def cuCtxGetCurrent(self, out: Any) -> None:  # noqa: N802
        out.value = self.stack[-1] if self.stack else None

    def cuCtxGetDevice(self, out: Any) -> int:  # noqa: N802
        out.value = 7
        return 0 if self.stack else 201

    def cuCtxPushCurrent_v2(self, context: int) -> None:  # noqa: N802
        assert context == PYCUDAS or (context == PRIMARY and self.retained)
        self.stack.append(context)

    def cuCtxPopCurrent_v2(self, out: Any) -> None:  # noqa: N802
        out.value = self.stack.pop()

    def cuCtxSynchronize(self) -> None:  # noqa: N802
        assert self.stack and self._recording is None
        self.synchronisations += 1

    # Streams and graphs.

    def cuStreamCreate(self, out: Any, flags: int) -> None:  # noqa: N802
        assert flags == cuda_driver.STREAM_NON_BLOCKING and self.stack
        out.value = STREAM + len(self.streams)
        self.streams.add(out.value)

    def cuStreamDestroy_v2(self, stream: int) -> None:  # noqa: N802
        assert self.stack
        self.streams.remove(stream)

    def cuStreamSynchronize(self, stream: int) -> None:  # noqa: N802
        assert self._recording is None, "a stream that is being recorded cannot be waited for"
        assert stream in self.streams
        self.synchronisations += 1

    def cuEventCreate(self, out: Any, flags: int) -> int:  # noqa: N802
        out.value = self.new_handle()
        return 0 if self.stack else 201

    def cuEventRecord(self, event: int, stream: int) -> None:  # noqa: N802
        self._events[event] = stream

    def cuStreamWaitEvent(self, stream: int, event: int, flags: int) -> None:  # noqa: N802
        self.waits.append((stream, self._events[event]))

    def cuEventDestroy_v2(self, event: int) -> None:  # noqa: N802
        del self._events[event]

    def cuStreamBeginCapture_v2(self, stream: int, mode: int) -> None:  # noqa: N802
        assert stream in self.streams and mode == cuda_driver.CAPTURE_THREAD_LOCAL and self._recording is None
        self._recording = []

    def cuStreamEndCapture(self, stream: int, out: Any) -> None:  # noqa: N802
        assert self._recording is not None
        out.value = self.new_handle()
        self._recorded[out.value], self._recording = self._recording, None

    def cuGraphInstantiateWithFlags(self, out: Any, graph: int, flags: int) -> None:  # noqa: N802
        self.graphs.append(0)
        out.value = len(self.graphs)  # a handle is not 0
        self._recorded[out.value] = self._recorded[graph]

    def cuGraphDestroy(self, graph: int) -> None:  # noqa: N802
        del self._recorded[graph]

    def cuGraphLaunch(self, executable: int, stream: int) -> None:  # noqa: N802
        times = self.graphs[executable - 1]
        assert stream in self.streams and times is not None
        self.graphs[executable - 1] = times + 1
        for each in self._recorded[executable]:
            self.do(each)

    def cuGraphExecDestroy(self, executable: int) -> None:  # noqa: N802
        self.graphs[executable - 1] = None

    # Memory.

    def cuMemAlloc_v2(self, out: Any, nbytes: int) -> int:  # noqa: N802
        assert self.stack
        if sum(map(len, self.allocated.values())) + nbytes > self.limit:
            return cuda_driver.OUT_OF_MEMORY
        out.value = self._memory(nbytes, self.allocated)
        return 0

    def cuMemFree_v2(self, address: int) -> None:  # noqa: N802
        assert self.stack
        del self.allocated[address]

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> None:  # noqa: N802
        free.value, total.value = 0, self.limit

    def cuPointerGetAttribute(self, out: Any, attribute: int, address: int) -> int:  # noqa: N802
        assert attribute == cuda_driver.DEVICE_ORDINAL
        out.value = self.elsewhere.get(address, 0)
        return 0

    def cuMemHostAlloc(self, out: Any, nbytes: int, flags: int) -> None:  # noqa: N802
        assert self.stack and flags == 0
        out.value = self._memory(nbytes, self.pinned)

    def cuMemFreeHost(self, address: int) -> None:  # noqa: N802
        assert self.stack
        del self.pinned[address]

    @staticmethod
    def _memory(nbytes: int, into: dict[int, Any]) -> int:
        memory = bytearray(b"\xa5" * (nbytes + ALIGNMENT))  # not zero: what is not written must not be read
        start = ctypes.addressof((ctypes.c_char * len(memory)).from_buffer(memory))
        address = -(-start // ALIGNMENT) * ALIGNMENT
        into[address] = memory
        return address

    def cuMemcpyHtoDAsync_v2(self, to: int, source: int, nbytes: int, stream: int) -> None:  # noqa: N802
        assert stream in self.streams
        self.do(lambda: ctypes.memmove(to, source, nbytes))

    cuMemcpyDtoHAsync_v2 = cuMemcpyDtoDAsync_v2 = cuMemcpyHtoDAsync_v2  # noqa: N815

    def cuMemsetD8Async(self, to: int, value: int, nbytes: int, stream: int) -> None:  # noqa: N802
        assert stream in self.streams
        self.do(lambda: ctypes.memset(to, value, nbytes))

    # Kernels.

    def cuModuleLoadData(self, out: Any, data: bytes) -> None:  # noqa: N802
        digest = hashlib.sha256(data).hexdigest()
        entries = json.loads((cubins.FOLDER / "kernels.json").read_text())["kernels"]
        out.value = self.new_handle()
        self._functions[out.value] = next(entry for entry in entries if entry["sha256"] == digest)
        self.modules.add(out.value)

    def cuModuleUnload(self, module: int) -> None:  # noqa: N802
        self.modules.remove(module)

    def cuModuleGetFunction(self, out: Any, module: int, symbol: bytes) -> None:  # noqa: N802
        assert symbol.decode() == self._functions[module]["symbol"]
        out.value = module

    def cuFuncSetAttribute(self, function: int, attribute: int, value: int) -> None:  # noqa: N802
        assert attribute == cuda_driver.MAX_DYNAMIC_SHARED
        self._granted[function] = value

    def cuLaunchKernel(self, function: int, *rest: Any) -> None:  # noqa: N802
        grid, block, shared, stream, parameters, extra = rest[:3], rest[3:6], *rest[6:]
        entry = self._functions[function]
        assert shared == entry["shared"] <= self._granted.get(function, 48 * 1024)
        assert block == (entry["threads"], 1, 1) and stream in self.streams and extra is None
        assert len(parameters) == len(entry["arguments"])
        values = {}
        for (name, kind), address in zip(entry["arguments"], parameters, strict=True):
            width = ctypes.c_uint64 if kind.startswith("*") else ctypes.c_int32
            values[name] = width.from_address(address).value
        assert values.pop("global_scratch") == values.pop("profile_scratch") == 0
        self.do(lambda: self._run(entry["kernel"], grid, values))

    def _run(self, kernel: str, grid: tuple[int, int, int], values: dict[str, int]) -> None:
        self.launches.append(kernel)
        assert all(grid)
        arguments = SimpleNamespace(**values, images=grid[1], tiles=grid[0])
        getattr(self, f"_{kernel}")(arguments)

    # The kernels. Of the prior's five launches the first takes r, and the last gives what the reference makes of it.

    def _map(self, of: SimpleNamespace, name: str) -> NDArray[Any]:
        dtype = DTYPES[launches.ARGUMENT_TYPES[name].removeprefix("*")]
        return at(getattr(of, name), (of.images, of.channels, of.height, of.width), dtype)

    def _step(self, of: SimpleNamespace, name: str) -> NDArray[Any]:
        dtype = DTYPES[launches.ARGUMENT_TYPES[name].removeprefix("*")]
        return at(getattr(of, name), (4, of.images, of.channels // 4, of.height, of.width), dtype)[of.step]

    def _prior_begin(self, of: SimpleNamespace) -> None:
        step = 1 + [f"adaptor_{step}" for step in (1, 2, 3)].index(BLOCKS[of.next_block])
        self._prior = {"step": step, "r": self._map(of, "r").copy(), "blocks": []}

    def _prior_between(self, of: SimpleNamespace) -> None:
        self._prior["blocks"].append(of.block)

    def _prior_end(self, of: SimpleNamespace) -> None:
        assert len(self._prior["blocks"]) == 3
        for image, r in enumerate(self._prior["r"]):
            indexes, means = entropy_params(self.tables, self._prior["step"], r)
            self._map(of, "indexes")[image], self._map(of, "means")[image] = indexes, means

    def _first_params(self, of: SimpleNamespace) -> None:
        indexes, means = entropy_params(self.tables, 0, np.zeros((of.channels, of.height, of.width), np.int32))
        self._map(of, "indexes")[:], self._map(of, "means")[:] = indexes, means

    def _quantise(self, of: SimpleNamespace) -> None:
        arrays = (self._map(of, name) for name in ("y", "indexes", "means", "r"))
        for image, (y, indexes, means, r) in enumerate(zip(*arrays, strict=True)):
            with np.errstate(invalid="ignore"):
                symbols = symbols_reference.quantise(self.tables, of.step, y, indexes, means)
            self._step(of, "symbols")[image] = symbols
            self._step(of, "coded")[image] = symbols_reference.select(of.step, indexes)
            symbols_reference.update(self.tables, of.step, symbols, means, r, np.empty_like(y))

    def _select(self, of: SimpleNamespace) -> None:
        self._step(of, "coded")[:] = [symbols_reference.select(of.step, each) for each in self._map(of, "indexes")]

    def _update(self, of: SimpleNamespace) -> None:
        arrays = (self._map(of, name) for name in ("means", "r", "y_hat"))
        for symbols, means, r, y_hat in zip(self._step(of, "symbols"), *arrays, strict=True):
            symbols_reference.update(self.tables, of.step, symbols, means, r, y_hat)

    def _vq_lookup(self, of: SimpleNamespace) -> None:
        codebook = at(of.codebook, (of.dim, of.entries), np.float32).T
        z = at(of.z, (of.tiles, of.dim, 32), np.float32)
        with np.errstate(invalid="ignore"):
            at(of.tokens, (of.tiles, 32), np.uint16)[:] = vq_lookup_reference.vq_lookup(codebook, z)

    def _pad_pixels(self, of: SimpleNamespace) -> None:
        pixels = at(of.pixels, (of.height, of.width, 3), np.uint8)
        at(of.image, (3, of.padded_height, of.padded_width), np.float32)[:] = images.pad_to_tiles(pixels)[0]

    def _crop_pixels(self, of: SimpleNamespace) -> None:
        image = at(of.image, (1, 3, of.padded_height, of.padded_width), np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            at(of.pixels, (of.height, of.width, 3), np.uint8)[:] = images.crop_to_pixels(image, of.height, of.width)

    def _check_finite(self, of: SimpleNamespace) -> None:
        if not np.isfinite(at(of.values, (of.images, of.count), np.float32)).all():
            at(of.flag, (1,), np.int32)[:] = 1


class FakeLibrary:
    """libcuda over a FakeGPU: pointers and handles as ctypes passes them, and error codes."""

    def __init__(self, gpu: FakeGPU) -> None:
        self._gpu = gpu

    def __getattr__(self, name: str) -> Callable[..., int]:
        assert name in cuda_driver.SIGNATURES
        if name == "cuGetErrorString":
            return lambda number, text: setattr(text._obj, "value", b"what it says")
        function = getattr(self._gpu, name)

        def call(*arguments: Any) -> int:
            assert len(arguments) == len(cuda_driver.SIGNATURES[name]), name
            if name in self._gpu.fails:
                return self._gpu.fails[name]
            return function(*map(_plain, arguments)) or 0

        return call


def _plain(argument: Any) -> Any:
    """What a pointer points to, or what a handle is."""
    if hasattr(argument, "_obj"):
        return argument._obj
    return argument.value if isinstance(argument, ctypes.c_void_p) else argument


def install(monkeypatch: pytest.MonkeyPatch, gpu: FakeGPU) -> ModuleType:
    """Put this GPU in the place of NVIDIA's driver until the test ends; returns dlf.runtime.gpu.device."""
    library = FakeLibrary(gpu)
    device = importlib.import_module("dlf.runtime.gpu.device")

    def there() -> FakeLibrary:
        return library

    # Devices, arrays and graphs may outlive the test, and this GPU with it.
    def while_there(function: Callable[..., None]) -> Callable[..., None]:
        return lambda *arguments: function(*arguments) if cuda_driver._library is there else None

    lasting_allocator = type("Allocator", (allocator.Allocator,), {"_give_back": while_there(allocator.Allocator._give_back)})
    lasting_graph = type("Graph", (cuda_driver.Graph,), {"close": while_there(cuda_driver.Graph.close)})
    monkeypatch.setattr(cuda_driver, "_library", there)
    monkeypatch.setattr(cuda_driver, "Graph", lasting_graph)
    monkeypatch.setattr(device, "Allocator", lasting_allocator)
    monkeypatch.setattr(device, "_close", while_there(device._close))
    return device
