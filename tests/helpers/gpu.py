"""A simulated GPU: pycuda's interface over host memory, with the kernels' NumPy references in place of their code.

Work is done as it is put on the stream, or recorded where a graph is captured, with the addresses that it had then, as on a
GPU. What dlf makes of the interface can be tested so; that a GPU does the same cannot.
"""

import ctypes
import hashlib
import importlib
import json
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dlf.kernels import launches, symbols_reference, vq_lookup_reference
from dlf.kernels.entropy_bin import BLOCKS, EntropyTables
from dlf.kernels.entropy_params_reference import entropy_params
from dlf.runtime import images
from dlf.runtime.gpu import cubins
from dlf.runtime.gpu import driver as cuda_driver

NO_GPU = cuda_driver.missing() or (None if find_spec("pycuda") else "pycuda is not installed")
# Marks of what runs on a GPU.
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(NO_GPU is not None, reason=f"no GPU to run on: {NO_GPU}")]
ALIGNMENT = 512
GIVEN_STREAM = 77
DTYPES = {"u8": np.uint8, "i8": np.int8, "u16": np.uint16, "i16": np.int16, "i32": np.int32, "i64": np.int64, "fp32": np.float32}


def at(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """The array at an address."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * nbytes).from_address(address), dtype).reshape(shape)


class FakeGPU:
    """What happens on the device.

    Attributes:
        synchronisations: how often the host has waited.
        launches: names of the kernels, in the order in which they were executed, in graphs or not.
        waits: (stream, other) of each wait between streams.
        graphs: of each graph the times it was launched; None once it is released.
        pushed: contexts on the stack.
        limit: bytes of memory; allocations beyond fail.
    """

    def __init__(self, tables: EntropyTables | None = None, capability: tuple[int, int] = (8, 9)) -> None:
        self.tables = tables
        self.capability = capability
        self.synchronisations = 0
        self.launches: list[str] = []
        self.waits: list[tuple[int, int]] = []
        self.graphs: list[int | None] = []
        self.pushed = 0
        self.limit = 1 << 40
        self.allocated: dict[int, Any] = {}
        self._recording: list[Callable[[], None]] | None = None
        self._prior: dict[str, Any] = {}

    def do(self, work: Callable[[], None]) -> None:
        """Work on the stream."""
        assert self.pushed, "no context is current"
        if self._recording is None:
            work()
        else:
            self._recording.append(work)

    def capture(self, stream: int, work: Callable[[], None]) -> Any:
        assert self._recording is None
        self._recording = recorded = []
        try:
            work()
        finally:
            self._recording = None
        number = len(self.graphs)
        self.graphs.append(0)

        def launch(on: int) -> None:
            assert on == stream and self.graphs[number] is not None
            self.graphs[number] += 1
            for each in recorded:
                self.do(each)

        return SimpleNamespace(launch=launch, close=lambda: self.graphs.__setitem__(number, None))

    def module(self) -> ModuleType:
        """pycuda.driver, as far as dlf uses it."""
        gpu = self

        class Context:
            def push(self) -> None:
                gpu.pushed += 1

            @staticmethod
            def pop() -> None:
                gpu.pushed -= 1
                assert gpu.pushed >= 0

            def detach(self) -> None:
                assert gpu.pushed == 0

        class Device:
            def __init__(self, ordinal: int) -> None:
                assert ordinal == 0

            def name(self) -> str:
                return "no GPU at all"

            def compute_capability(self) -> tuple[int, int]:
                return gpu.capability

            def retain_primary_context(self) -> Context:
                return Context()

        class Stream:
            handle = 42

            def __init__(self, flags: int) -> None:
                assert flags == 1 and gpu.pushed

            def synchronize(self) -> None:
                assert gpu._recording is None, "a stream that is being recorded cannot be waited for"
                gpu.synchronisations += 1

        class DeviceAllocation:
            def __init__(self, nbytes: int) -> None:
                if sum(map(len, gpu.allocated.values())) + nbytes > gpu.limit:
                    raise module.MemoryError("out of memory")
                memory = bytearray(b"\xa5" * (nbytes + ALIGNMENT))  # not zero: what is not written must not be read
                start = ctypes.addressof((ctypes.c_char * len(memory)).from_buffer(memory))
                self._address = -(-start // ALIGNMENT) * ALIGNMENT
                gpu.allocated[self._address] = memory

            def __int__(self) -> int:
                return self._address

            def free(self) -> None:
                del gpu.allocated[self._address]

        def from_host(to: int, source: NDArray[Any], stream: Stream) -> None:
            gpu.do(lambda: ctypes.memmove(to, source.ctypes.data, source.nbytes))

        def to_host(to: NDArray[Any], source: int, stream: Stream) -> None:
            gpu.do(lambda: ctypes.memmove(to.ctypes.data, source, to.nbytes))

        module = ModuleType("pycuda.driver")
        module.MemoryError = type("MemoryError", (Exception,), {})
        module.init = lambda: None
        module.get_driver_version = lambda: 13010
        module.Context, module.Device, module.Stream = Context, Device, Stream
        module.DeviceAllocation = module.mem_alloc = DeviceAllocation
        module.mem_get_info = lambda: (0, gpu.limit)
        module.pagelocked_empty = np.empty
        module.memcpy_htod_async, module.memcpy_dtoh_async = from_host, to_host
        module.memcpy_dtod_async = lambda to, source, size, stream: gpu.do(lambda: ctypes.memmove(to, source, size))
        module.memset_d8_async = lambda to, value, size, stream: gpu.do(lambda: ctypes.memset(to, value, size))
        module.function_attribute = SimpleNamespace(MAX_DYNAMIC_SHARED_SIZE_BYTES="shared")
        module.module_from_buffer = self._load
        return module

    def _load(self, data: bytes) -> Any:
        digest = hashlib.sha256(data).hexdigest()
        entries = json.loads((cubins.FOLDER / "kernels.json").read_text())["kernels"]
        entry = next(entry for entry in entries if entry["sha256"] == digest)
        granted = 48 * 1024

        class Function:
            def set_attribute(self, name: str, value: int) -> None:
                nonlocal granted
                granted = value

            def __call__(self_, *arguments: Any, grid: Any, block: Any, shared: int, stream: Any) -> None:  # noqa: N805
                assert shared == entry["shared"] <= granted
                assert block == (entry["threads"], 1, 1)
                assert [each.dtype for each in arguments] == [
                    np.uint64 if kind.startswith("*") else np.int32 for _, kind in entry["arguments"]
                ]
                values = {name: int(each) for (name, _), each in zip(entry["arguments"], arguments, strict=True)}
                assert values.pop("global_scratch") == values.pop("profile_scratch") == 0
                self.do(lambda: self._run(entry["kernel"], grid, values))

        def get_function(symbol: str) -> Function:
            assert symbol == entry["symbol"]
            return Function()

        return SimpleNamespace(get_function=get_function)

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
        with np.errstate(invalid="ignore"):
            at(of.pixels, (of.height, of.width, 3), np.uint8)[:] = images.crop_to_pixels(image, of.height, of.width)

    def _check_finite(self, of: SimpleNamespace) -> None:
        if not np.isfinite(at(of.values, (of.images, of.count), np.float32)).all():
            at(of.flag, (1,), np.int32)[:] = 1


def install(monkeypatch: pytest.MonkeyPatch, gpu: FakeGPU) -> ModuleType:
    """Replace pycuda by this GPU in dlf.runtime.gpu.device until the test ends."""
    package, driver = ModuleType("pycuda"), gpu.module()
    package.VERSION_TEXT, package.driver, package.__spec__ = "0", driver, ModuleSpec("pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    for name in ("dlf.runtime.gpu.device", "dlf.runtime.backends.tensorrt"):
        monkeypatch.setitem(sys.modules, name, None)  # so that what is imported now goes when the test ends
        del sys.modules[name]
    monkeypatch.setattr(cuda_driver, "capture", gpu.capture)
    monkeypatch.setattr(cuda_driver, "wait", lambda stream, other: gpu.waits.append((stream, other)))
    return importlib.import_module("dlf.runtime.gpu.device")
