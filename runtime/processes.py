"""Several processes on this machine, each with an open codec of its own, that encode batches for one that has the images."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from dlf.runtime.errors import BackendFailedError, reindexed

if TYPE_CHECKING:
    from dlf.runtime.codec import Codec

_codec: "Codec"  # of a process of a pool


class Processes:
    """So many processes. They start with the first batch, and end with `close`.

    Attributes:
        count: how many.
        ended: whether one has ended, and so none works any more.

    Args:
        open_codec: called in each of them; it is sent there.
    """

    def __init__(self, open_codec: Callable[[], "Codec"], count: int) -> None:
        self.count, self.ended = count, False
        # Not forked: libraries have threads and locks by now.
        self._pool = ProcessPoolExecutor(count, get_context("spawn"), _open, (open_codec,))
        self._ahead = 2 * count  # batches that are on their way, so that none of the processes waits

    def encode(
        self, batches: Iterable[tuple[Sequence[int], Sequence[Any]]], rate: Mapping[str, Any]
    ) -> Iterator[tuple[int, bytes]]:
        """Encode batches of images of one padded size, given with the images' numbers. Yields numbers with files.

        `rate` are the arguments of `Codec.encode_many` that ask for one.

        Raises:
            DLFError: what encoding an image raises; its `index` is the image's number.
            BackendFailedError: a process ended, or could not open its codec.
        """
        waiting: deque[tuple[Sequence[int], Future[list[bytes]]]] = deque()
        try:
            for numbers, images in batches:
                waiting.append((numbers, self._pool.submit(_encode, images, rate)))
                if len(waiting) == self._ahead:
                    yield from _files(*waiting.popleft())
            while waiting:
                yield from _files(*waiting.popleft())
        except BrokenProcessPool as error:
            self.ended = True
            raise BackendFailedError(f"A process that encodes has ended ({error}); is there memory for so many?") from error
        finally:
            for _, future in waiting:
                future.cancel()

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)


def _files(numbers: Sequence[int], future: "Future[list[bytes]]") -> Iterator[tuple[int, bytes]]:
    with reindexed(list(numbers)):
        yield from zip(numbers, future.result(), strict=True)


def _open(open_codec: Callable[[], "Codec"]) -> None:
    global _codec
    _codec = open_codec()


def _encode(images: Sequence[Any], rate: Mapping[str, Any]) -> list[bytes]:
    return _codec.encode_many(images, len(images), **rate)
