"""A GPU that work is done on: one stream, arrays, kernels, graphs.

All work goes on the one stream in order: a buffer may be used again as soon as the last work that uses it is on the stream. The
host waits only in `Device.read`. Not for use by several threads at a time.
"""

import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from math import prod
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dlf.kernels.launches import Launch
from dlf.runtime.errors import BackendFailedError, BackendMissingError, InvalidArgumentError
from dlf.runtime.gpu import driver
from dlf.runtime.gpu.allocator import Allocator
from dlf.runtime.gpu.arrays import DeviceArray, received
from dlf.runtime.gpu.cubins import packed, read_cubins
from dlf.runtime.gpu.dlpack import CUDA, Memory
from dlf.runtime.gpu.plan import Buffer, Replays

_PLAIN_SHARED = 48 * 1024  # bytes of shared memory that a kernel may have without asking for more
ALIGNMENT = 256  # of addresses that TensorRT takes


class Device:
    """One GPU. Its methods are called within `with device:`, where its context is current.

    The context is the GPU's primary one, which torch and others in the process use too, or one that the application has made
    current in this thread (`driver.Context`).

    Attributes:
        name: as the driver tells it.
        capability: its compute capability, such as (8, 9).
        versions: of the driver.
        ordinal: the driver's number of it.
        stream: handle of the stream that all work goes on.
    """

    def __init__(self, given_stream: int | None = None, ordinal: int = 0, primary: bool = False) -> None:
        """Open a GPU.

        Args:
            given_stream: handle of the caller's CUDA stream, 0 for the default one: what is done here comes after the
                caller's work that is on it before, and before the work that is put on it later. By default the order is
                the caller's business, except for arrays that tell their stream.
            ordinal: the driver's number of the GPU.
            primary: whether to work in the GPU's primary context even if another one is current.

        Raises BackendMissingError: there is no such GPU.
        """
        if (gpu := driver.describe(ordinal)) is None:
            raise BackendMissingError(f"{driver.missing(ordinal)}.")
        self.capability, self.name = gpu
        self.versions = {"cuda driver": driver.version()}
        self.ordinal = ordinal
        self._given_stream = given_stream
        self._depth = 0
        self._staged: list[Buffer[NDArray[np.uint8]]] = []  # host memory that copies still read
        self._modules: list[int] = []
        self._context = driver.Context(ordinal, primary)
        try:
            with self._context:
                self.stream = driver.create_stream()
        except BaseException:
            self._context.release()
            raise
        self._allocator = Allocator(self._context, self.name)
        self.replays = Replays(self.stream, driver.capture)
        self._close = weakref.finalize(
            self, _close, self._context, self.stream, self.replays, self._modules, self._staged, self._allocator
        )

    def close(self) -> None:
        """Release graphs, kernels, memory that is not in use, the stream and the context; the device is of no use afterwards.

        Arrays that are left can still be handed over through DLPack; the context goes with the last of them.
        """
        self._close()

    def __enter__(self) -> "Device":
        if not self._close.alive:
            raise BackendFailedError("this GPU was closed; open another codec.")
        self._context.__enter__()
        self._depth += 1
        try:
            if self._depth == 1:
                self._allocator.collect()
                if self._given_stream is not None:
                    driver.wait(self.stream, self._given_stream)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if self._depth == 1 and self._given_stream is not None:
                driver.wait(self._given_stream, self.stream)
        finally:
            self._leave()

    def _leave(self) -> None:
        self._depth -= 1
        self._context.__exit__(None, None, None)

    # ------------------------------------------------------------------------------------------------------- memory

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> DeviceArray:
        """Return an array of unknown values. Its memory is used again once nothing refers to it.

        Raises OutOfMemoryError.
        """
        shape, kind = tuple(shape), np.dtype(dtype)
        address, loan = self._allocator.take(prod(shape) * kind.itemsize)
        return self._array(Memory(address, shape, kind, (CUDA, self.ordinal), loan))

    def upload(self, values: NDArray[Any]) -> DeviceArray:
        """Copy a host array to a new array on the GPU, and return that. The host array may be changed at once."""
        array = self.empty(values.shape, values.dtype)
        self.write(array, values)
        return array

    def write(self, to: DeviceArray, values: NDArray[Any]) -> None:
        """Copy a host array into `to`, of the same size and type. The host array may be changed at once."""
        _require_alike(to, values)
        pinned = self._allocator.pinned.take(to.nbytes)
        self._staged.append(pinned)
        staged = pinned.memory[: to.nbytes]
        staged.view(to.dtype)[:] = values.ravel()
        driver.copy_in(to.address, staged, self.stream)

    def copy(self, to: DeviceArray, source: DeviceArray) -> None:
        """Copy `source` into `to`, of the same size and type."""
        _require_alike(to, source)
        driver.copy(to.address, source.address, to.nbytes, self.stream)

    def zero(self, array: DeviceArray) -> None:
        """Set all of an array's bytes to 0."""
        driver.zero(array.address, array.nbytes, self.stream)

    def read(self, *arrays: DeviceArray) -> list[NDArray[Any]]:
        """Copy arrays to the host, and return the copies. This waits, once, for all work that is on the stream."""
        landed = [self._allocator.pinned.take(array.nbytes) for array in arrays]
        for pinned, array in zip(landed, arrays, strict=True):
            driver.copy_out(pinned.memory[: array.nbytes], array.address, self.stream)
        driver.synchronise(self.stream)
        values = [
            pinned.memory[: array.nbytes].view(array.dtype).reshape(array.shape).copy()
            for pinned, array in zip(landed, arrays, strict=True)
        ]
        for pinned in (*landed, *self._staged):
            self._allocator.pinned.give(pinned)
        self._staged.clear()
        return values

    def borrow(self, array: object, dtype: DTypeLike) -> DeviceArray:
        """Return another library's array on this GPU, without a copy if its address is a multiple of `ALIGNMENT`.

        Work from now on waits for its values. The library must not change or reuse it before that work is done, which
        `read` waits for, and a stream that the caller gave.

        Raises InvalidArgumentError: it is on another device, of another type, or not dense and row-major.
        """
        if isinstance(array, DeviceArray) and array.stream == self.stream:
            memory = array.memory
        else:
            memory = received(array, self.stream, self._wait, driver.ordinal_of)
        if memory.device != (CUDA, self.ordinal):
            raise InvalidArgumentError(f"the array is not on GPU {self.ordinal} but on device {memory.device}; copy it there.")
        if memory.dtype != np.dtype(dtype):
            raise InvalidArgumentError(f"an array of {memory.dtype}, not {np.dtype(dtype)}; convert it first.")
        borrowed = self._array(memory)
        if memory.address % ALIGNMENT == 0:
            return borrowed
        aligned = self.empty(borrowed.shape, borrowed.dtype)
        self.copy(aligned, borrowed)
        return aligned

    def _array(self, memory: Memory) -> DeviceArray:
        return DeviceArray(memory, self.stream, self._wait)

    def _wait(self, stream: int, other: int) -> None:
        """Let a stream wait for another. Other libraries call this at any time and in any thread: the context is made current."""
        if self._close.alive:  # `close` waits for all work, and the stream is gone then
            with self._context:
                driver.wait(stream, other)

    # --------------------------------------------------------------------------------------------------------- work

    def kernels(self, width: int | None) -> Launch:
        """Load the kernels that come with dlf, and return a function that launches them.

        `width` is the padded width of the prior's kernels; None leaves those out.

        Raises BackendFailedError: there are none for this GPU, or they are damaged.
        """
        cubins = read_cubins(self.capability, width)
        functions = {}
        for name, cubin in cubins.items():
            self._modules.append(driver.load_module(cubin.data))
            functions[name] = driver.get_function(self._modules[-1], cubin.symbol)
            if cubin.shared > _PLAIN_SHARED:
                driver.allow_shared(functions[name], cubin.shared)

        def launch(kernel: str, grid: tuple[int, int], arguments: Mapping[str, Any]) -> None:
            cubin = cubins[kernel]
            driver.launch(functions[kernel], grid, cubin.threads, cubin.shared, self.stream, packed(cubin, arguments))

        return launch

    def replay(
        self,
        name: str,
        shape: Hashable,
        arrays: Sequence[DeviceArray],
        work: Callable[[], None],
        capturable: Callable[[], bool] = lambda: True,
    ) -> None:
        """Put work on the stream that is the same each time, by a CUDA graph if possible; see `plan.Replays`."""
        self.replays.run(name, shape, [array.address for array in arrays], work, capturable)


def _close(
    context: driver.Context,
    stream: int,
    replays: Replays,
    modules: list[int],
    staged: list[Buffer[NDArray[np.uint8]]],
    allocator: Allocator,
) -> None:
    with context:
        driver.synchronise(stream)
        replays.clear()
        for module in modules:
            driver.unload_module(module)
        for pinned in staged:
            allocator.pinned.give(pinned)
        driver.destroy_stream(stream)
    allocator.close()


def _require_alike(to: DeviceArray, source: Any) -> None:
    if (to.nbytes, to.dtype) != (source.nbytes, source.dtype):
        raise InvalidArgumentError(f"{source.shape} values of {source.dtype} do not fill {to.shape} of {to.dtype}.")
