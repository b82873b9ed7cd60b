"""Exchange of arrays on a GPU with other libraries, by `__cuda_array_interface__` and DLPack, without copying.

https://nvidia.github.io/numba-cuda/user/cuda_array_interface.html (version 3) and https://dmlc.github.io/dlpack.
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, Protocol

import numpy as np

from dlf.runtime.errors import InvalidArgumentError
from dlf.runtime.gpu import dlpack
from dlf.runtime.gpu.dlpack import CUDA, Memory


class SupportsDLPack(Protocol):
    """An array of torch, CuPy, JAX and others."""

    def __dlpack__(self, *, stream: Any = None) -> Any:
        """Return a capsule that holds the array."""
        ...

    def __dlpack_device__(self) -> Any:
        """Return the type and number of the device that the array is on."""
        ...


class Loan:
    """The owner of memory that goes back to where it came from once nothing refers to it.

    Attributes:
        shared: whether another library has got it: its work on it may go on when nothing refers to it any more.
    """

    def __init__(self, give_back: Callable[[bool], None]) -> None:
        """`give_back(shared)` is called by whichever thread drops the last reference."""
        self.shared = False
        self._give_back = give_back

    def __del__(self) -> None:
        self._give_back(self.shared)


class DeviceArray:
    """A dense, row-major array on a GPU, for other libraries to take: `torch.from_dlpack(a)`, `cupy.asarray(a)`.

    Its values are there once the work on `stream` is done that was put there before; libraries see to that themselves. The
    memory is kept as long as this object, a part of it, or an array that another library made of it exists.

    Attributes:
        memory: where it lies.
        shape, dtype: of the array.
        stream: handle of the CUDA stream that its values are computed on.
    """

    def __init__(self, memory: Memory, stream: int, wait: Callable[[int, int], None]) -> None:
        """`wait(stream, other)` lets a stream wait for another."""
        self.memory = memory
        self.shape, self.dtype, self.stream = memory.shape, memory.dtype, stream
        self._wait = wait

    @property
    def address(self) -> int:
        """The address of its first byte."""
        return self.memory.address

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def reshape(self, *shape: int) -> "DeviceArray":
        """Return the same memory as an array of another shape."""
        if prod(shape) != prod(self.shape):
            raise InvalidArgumentError(f"an array of shape {self.shape} cannot be seen as one of {shape}.")
        return DeviceArray(replace(self.memory, shape=shape), self.stream, self._wait)

    def __getitem__(self, index: int) -> "DeviceArray":
        """Return the part at an index of the first axis, in the same memory."""
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"{index} is not in 0..{self.shape[0] - 1}")
        part = self.shape[1:]
        address = self.address + index * prod(part) * self.dtype.itemsize
        return DeviceArray(replace(self.memory, address=address, shape=part), self.stream, self._wait)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self._share()
        description = {"shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False), "strides": None}
        return {**description, "stream": self.stream, "version": 3}

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """Return a DLPack capsule that holds it, of version 1.0 if `max_version` allows that, otherwise of 0.x.

        Raises BufferError: a copy is asked for, or another device.
        """
        if dl_device is not None and tuple(dl_device) != self.memory.device:
            raise BufferError(f"the array is on device {self.memory.device}, and is not moved to {tuple(dl_device)}.")
        if copy:
            raise BufferError("the array is handed over without a copy; copy what is made of it.")
        self._share()
        # By the protocol None and 1 are the default stream, 2 that of each thread, and -1 asks for no waiting.
        if stream != -1:
            self._wait(1 if stream is None else stream, self.stream)
        return dlpack.send(self.memory, versioned=max_version is not None and tuple(max_version) >= dlpack.VERSION)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.memory.device

    def _share(self) -> None:
        if isinstance(self.memory.owner, Loan):
            self.memory.owner.shared = True


def _capsule(array: Any, stream: int) -> Any:
    try:
        return array.__dlpack__(stream=stream, max_version=dlpack.VERSION)
    except TypeError:  # of a library from before DLPack 1.0
        return array.__dlpack__(stream=stream)


def is_on_device(array: object) -> bool:
    """Whether an object is an array on an NVIDIA GPU, as far as it tells."""
    if hasattr(array, "__dlpack_device__"):
        return bool(array.__dlpack_device__()[0] == CUDA)
    return hasattr(array, "__cuda_array_interface__")


def received(array: Any, stream: int, wait: Callable[[int, int], None], ordinal_of: Callable[[int], int]) -> Memory:
    """Return where another library's array on a GPU lies. `stream` waits, by `wait(stream, other)`, until its values are there.

    `ordinal_of(address)` is the number of the GPU that an address is on.

    Raises:
        InvalidArgumentError: the library does not give it, it is not dense and row-major, or of a type that NumPy does not have.
    """
    # DLPack first: torch tells its stream only there.
    if hasattr(array, "__dlpack__"):
        try:
            return dlpack.receive(_capsule(array, stream))
        except (BufferError, RuntimeError) as error:  # of an array that wants its gradient, for instance
            raise InvalidArgumentError(f"the array's library does not give it ({error}).") from error
    interface = array.__cuda_array_interface__
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    strides = interface.get("strides")
    if strides is not None and not dlpack.is_dense(shape, tuple(stride // dtype.itemsize for stride in strides)):
        raise InvalidArgumentError("the array is not dense and row-major; make it contiguous first.")
    if interface.get("mask") is not None:
        raise InvalidArgumentError("masked arrays are not supported; fill them first.")
    other = interface.get("stream")
    if other is not None:  # None: there is nothing to wait for
        wait(stream, other)
    address = interface["data"][0]
    return Memory(address, shape, dtype, (CUDA, ordinal_of(address)), array)
