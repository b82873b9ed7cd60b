"""A GPU through pycuda: its primary context, which torch and others in the process share, one stream, buffers, kernels, graphs.

All work goes on one stream in order, so that a buffer may be reused as soon as the last work that uses it has been put there.
The host waits in `Device.read` alone. Not for use by several threads at a time.
"""

import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from math import prod
from types import TracebackType
from typing import Any

import numpy as np
import pycuda
import pycuda.driver as cuda
from numpy.typing import DTypeLike, NDArray

from dlf.kernels.launches import Launch
from dlf.runtime.errors import InvalidArgumentError, OutOfMemoryError
from dlf.runtime.gpu import driver
from dlf.runtime.gpu.arrays import DeviceArray, Loan, received
from dlf.runtime.gpu.cubins import packed, read_cubins
from dlf.runtime.gpu.dlpack import CUDA, Memory
from dlf.runtime.gpu.plan import Buffer, BufferPool, Replays

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: the stream does not wait for the default one, which could not be recorded
_PLAIN_SHARED = 48 * 1024  # bytes of shared memory that a kernel may have without asking for more
ALIGNMENT = 256  # of addresses that TensorRT takes


class Device:
    """One GPU. Whatever is done with it is done within `with device:`.

    Attributes:
        name: as the driver tells it.
        capability: its compute capability, such as (8, 9).
        versions: pycuda's and the driver's.
        stream: handle of the stream that all work goes on.
    """

    def __init__(self, given_stream: int | None = None, ordinal: int = 0) -> None:
        """Open a GPU.

        Args:
            given_stream: handle of the caller's CUDA stream, 0 for the default one: what is done here comes after the
                caller's work that is on it before, and before the work that is put on it later. By default the order is
                the caller's business, but for arrays that tell their stream.
            ordinal: the driver's number of the GPU.
        """
        cuda.init()
        device = cuda.Device(ordinal)
        self.name: str = device.name()
        self.capability: tuple[int, int] = device.compute_capability()
        self.versions = {"pycuda": pycuda.VERSION_TEXT, "cuda driver": "{}.{}".format(*_version(cuda.get_driver_version()))}
        self._ordinal = ordinal
        self._given_stream = given_stream
        self._depth = 0
        self._returned: list[tuple[Buffer[cuda.DeviceAllocation], bool]] = []  # by arrays that are gone; see `_collect`
        self._staged: list[Buffer[NDArray[np.uint8]]] = []  # host memory that copies still read
        self._buffers: BufferPool[cuda.DeviceAllocation] = BufferPool(self._allocate)
        self._pinned: BufferPool[NDArray[np.uint8]] = BufferPool(_pinned)
        self._context = device.retain_primary_context()
        self._context.push()
        try:
            self._stream = cuda.Stream(_NON_BLOCKING)
        finally:
            cuda.Context.pop()
        self.stream: int = self._stream.handle
        self.replays = Replays(self.stream, driver.capture)
        resources = [self.replays, self._buffers, self._pinned]
        self._close = weakref.finalize(self, _close, self._context, self._stream, resources)

    def close(self) -> None:
        """Release the graphs, the unused buffers and the context. Arrays that are left stay readable by other libraries."""
        self._close()

    def __enter__(self) -> "Device":
        self._context.push()
        self._depth += 1
        if self._depth == 1:
            self._collect()
            if self._given_stream is not None:
                driver.wait(self.stream, self._given_stream)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._depth -= 1
        try:
            if self._depth == 0 and self._given_stream is not None:
                driver.wait(self._given_stream, self.stream)
        finally:
            cuda.Context.pop()

    # ------------------------------------------------------------------------------------------------------- memory

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> DeviceArray:
        """An array of unknown values. Its memory is reused once nothing refers to it.

        Raises OutOfMemoryError.
        """
        self._collect()
        shape, kind = tuple(shape), np.dtype(dtype)
        buffer = self._buffers.take(prod(shape) * kind.itemsize)
        loan = Loan(lambda shared: self._returned.append((buffer, shared)))
        return self._array(Memory(int(buffer.memory), shape, kind, (CUDA, self._ordinal), loan))

    def upload(self, values: NDArray[Any]) -> DeviceArray:
        """A copy of a host array, which may be changed at once."""
        array = self.empty(values.shape, values.dtype)
        self.write(array, values)
        return array

    def write(self, to: DeviceArray, values: NDArray[Any]) -> None:
        """Copy a host array, which may be changed at once, of the same size and type."""
        _require_alike(to, values)
        pinned = self._pinned.take(to.nbytes)
        self._staged.append(pinned)
        staged = pinned.memory[: to.nbytes]
        staged.view(to.dtype)[:] = values.ravel()
        cuda.memcpy_htod_async(to.address, staged, self._stream)

    def copy(self, to: DeviceArray, source: DeviceArray) -> None:
        """Copy an array of the same size and type."""
        _require_alike(to, source)
        cuda.memcpy_dtod_async(to.address, source.address, to.nbytes, self._stream)

    def zero(self, array: DeviceArray) -> None:
        """Set all of an array's bytes to 0."""
        cuda.memset_d8_async(array.address, 0, array.nbytes, self._stream)

    def read(self, *arrays: DeviceArray) -> list[NDArray[Any]]:
        """Copies of arrays on the host; waits, once, for all work that is on the stream."""
        landed = [self._pinned.take(array.nbytes) for array in arrays]
        for pinned, array in zip(landed, arrays, strict=True):
            cuda.memcpy_dtoh_async(pinned.memory[: array.nbytes], array.address, self._stream)
        self._stream.synchronize()
        values = [
            pinned.memory[: array.nbytes].view(array.dtype).reshape(array.shape).copy()
            for pinned, array in zip(landed, arrays, strict=True)
        ]
        for pinned in (*landed, *self._staged):
            self._pinned.give(pinned)
        self._staged.clear()
        return values

    def borrow(self, array: object, dtype: DTypeLike) -> DeviceArray:
        """Another library's array on this GPU, without a copy if its address is a multiple of `ALIGNMENT`.

        Work from now on waits for its values. The library must not change or reuse it before that work is done, which
        `read` waits for, and a stream that the caller gave.

        Raises InvalidArgumentError: it is on another device, of another type, or not dense and row-major.
        """
        if isinstance(array, DeviceArray) and array.stream == self.stream:
            memory = array.memory
        else:
            memory = received(array, self.stream, self._wait)
        if memory.device != (CUDA, self._ordinal):
            raise InvalidArgumentError(f"the array is not on GPU {self._ordinal} but on device {memory.device}; copy it there.")
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
        self._context.push()
        try:
            driver.wait(stream, other)
        finally:
            cuda.Context.pop()

    def _allocate(self, nbytes: int) -> cuda.DeviceAllocation:
        try:
            return cuda.mem_alloc(nbytes)
        except cuda.MemoryError:
            for unused in self._buffers.clear():
                unused.free()
        try:
            return cuda.mem_alloc(nbytes)
        except cuda.MemoryError as error:
            free, total = cuda.mem_get_info()
            raise OutOfMemoryError(
                f"{self.name} has no {nbytes} bytes of memory left ({free} of {total} are free); take fewer or smaller images."
            ) from error

    def _collect(self) -> None:
        """Take back the memory of arrays that are gone; arrays may go at any time, in any thread, this happens here."""
        while self._returned:
            buffer, shared = self._returned.pop()
            if shared:
                buffer.memory.free()  # which waits for other libraries' work on it
            else:
                self._buffers.give(buffer)

    # --------------------------------------------------------------------------------------------------------- work

    def kernels(self, width: int | None) -> Launch:
        """What launches the kernels that come with dlf, the prior's at a padded width (None: without the prior's).

        Raises BackendFailedError: there are none for this GPU, or they are damaged.
        """
        cubins = read_cubins(self.capability, width)
        modules = {name: cuda.module_from_buffer(cubin.data) for name, cubin in cubins.items()}
        functions = {name: module.get_function(cubins[name].symbol) for name, module in modules.items()}
        for name, function in functions.items():
            if cubins[name].shared > _PLAIN_SHARED:
                function.set_attribute(cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, cubins[name].shared)

        def launch(kernel: str, grid: tuple[int, int], arguments: Mapping[str, Any]) -> None:
            cubin = cubins[kernel]
            functions[kernel](
                *packed(cubin, arguments),
                grid=(*grid, 1),
                block=(cubin.threads, 1, 1),
                shared=cubin.shared,
                stream=self._stream,
            )

        return launch

    def replay(
        self,
        name: str,
        shape: Hashable,
        arrays: Sequence[DeviceArray],
        work: Callable[[], None],
        capturable: Callable[[], bool] = lambda: True,
    ) -> None:
        """Do work on arrays that is always the same, through a CUDA graph where that can be; see `gpu_plan.Replays`."""
        self.replays.run(name, shape, [array.address for array in arrays], work, capturable)


def _close(context: Any, stream: Any, resources: Sequence[Any]) -> None:
    context.push()
    try:
        stream.synchronize()
        for resource in resources:
            resource.clear()
    finally:
        cuda.Context.pop()
    context.detach()


def _pinned(nbytes: int) -> NDArray[np.uint8]:
    """Host memory that the GPU copies from and to by itself."""
    pinned: NDArray[np.uint8] = cuda.pagelocked_empty(nbytes, np.uint8)
    return pinned


def _require_alike(to: DeviceArray, source: Any) -> None:
    if (to.nbytes, to.dtype) != (source.nbytes, source.dtype):
        raise InvalidArgumentError(f"{source.shape} values of {source.dtype} do not fill {to.shape} of {to.dtype}.")


def _version(number: int) -> tuple[int, int]:
    """CUDA's 13010 is 13.1."""
    return number // 1000, number % 1000 // 10
