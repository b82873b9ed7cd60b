"""The memory of one device: buffers on the GPU that are used again, and host memory for copies.

A buffer goes back to its pool when nothing refers to it any more, in whatever thread that happens; `collect` takes it from there.
Where another library had the buffer, its work on it may not be done yet, and CUDA does not tell. Such buffers are set aside, and
after every `SET_ASIDE` of them one wait for the whole context makes all of them usable again.
"""

import numpy as np
from numpy.typing import NDArray

from dlf.runtime.errors import OutOfMemoryError
from dlf.runtime.gpu import driver
from dlf.runtime.gpu.arrays import Loan
from dlf.runtime.gpu.plan import Buffer, BufferPool

SET_ASIDE = 8  # buffers, which are pictures: that many are decoded between two waits


class Allocator:
    """Buffers in one context, which is current when its methods are called.

    Attributes:
        pinned: a pool of host memory that the GPU copies from and to by itself.
    """

    def __init__(self, context: driver.Context, name: str) -> None:
        """`name` is the GPU's, for messages."""
        self._context = context
        self._name = name
        self._closed = False
        self._lent = 0
        self._returned: list[tuple[Buffer[int], bool]] = []
        self._set_aside: list[Buffer[int]] = []
        self._buffers: BufferPool[int] = BufferPool(self._allocate)
        self.pinned: BufferPool[NDArray[np.uint8]] = BufferPool(driver.allocate_pinned)

    def take(self, nbytes: int) -> tuple[int, Loan]:
        """Return the address of at least `nbytes` bytes, and what gives them back when nothing refers to it any more.

        Raises OutOfMemoryError.
        """
        self.collect()
        buffer = self._buffers.take(nbytes)
        self._lent += 1
        return buffer.memory, Loan(lambda shared: self._give_back(buffer, shared))

    def collect(self) -> None:
        """Make the buffers that came back usable again."""
        while self._returned:
            buffer, shared = self._returned.pop()
            self._lent -= 1
            if shared:
                self._set_aside.append(buffer)
            else:
                self._buffers.give(buffer)
        if len(self._set_aside) >= SET_ASIDE:
            self._release_set_aside()

    def close(self) -> None:
        """Free everything that is not in use. What is in use is freed when it comes back, and the context goes with the last."""
        self._closed = True
        with self._context:
            for memory in self.pinned.clear():
                driver.free_pinned(memory)
        self._free_returned()

    def _give_back(self, buffer: Buffer[int], shared: bool) -> None:
        self._returned.append((buffer, shared))
        if self._closed:
            self._free_returned()

    def _free_returned(self) -> None:
        with self._context:
            self.collect()
            self._free_unused()
        if not self._lent:
            self._context.release()

    def _allocate(self, nbytes: int) -> int:
        try:
            return driver.allocate(nbytes)
        except OutOfMemoryError:
            self._free_unused()
        try:
            return driver.allocate(nbytes)
        except OutOfMemoryError as error:
            free, total = driver.memory_info()
            raise OutOfMemoryError(
                f"{self._name} has no {nbytes} bytes of memory left ({free} of {total} are free); take fewer or smaller images."
            ) from error

    def _free_unused(self) -> None:
        self._release_set_aside()
        for unused in self._buffers.clear():
            driver.free(unused)

    def _release_set_aside(self) -> None:
        if self._set_aside:
            driver.synchronise_context()
        while self._set_aside:
            self._buffers.give(self._set_aside.pop())
