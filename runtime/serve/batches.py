"""What waits to be coded, in batches of one order and one padded size.

There is no timer: a batch is what has come while the workers were busy. An idle worker takes a single image at once.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import TypeAlias

from dlf.runtime.formats import TILE
from dlf.runtime.serve.metrics import Metrics
from dlf.runtime.serve.worker import Failed, Order, Result

Size: TypeAlias = tuple[int, int] | None  # of a picture, in tiles, down and across; None if it is not known

# Codes bodies: gives a result for each, and the seconds of each step. Raises if the worker ended.
Run: TypeAlias = Callable[[Order, Sequence[bytes]], Awaitable[tuple[list[Result], dict[str, float]]]]

_log = logging.getLogger(__name__)
_ATTEMPTS = 2  # of a body alone
_LONGEST = 60  # seconds that a client is asked to wait


class FullError(Exception):
    """As many bodies wait as may.

    Attributes:
        retry_after: seconds after which there should be room.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The queue is full; try again in {retry_after} s.")
        self.retry_after = retry_after


class _Item:
    def __init__(self, body: bytes) -> None:
        self.body, self.came = body, perf_counter()
        self.result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()


class Batches:
    """Gives what waits to the workers.

    Args:
        run: codes a batch, on a worker that is free.
        workers: how many batches run at a time.
        batch: bodies that a batch has at most.
        pixels: that it has at most, padded, unless it has one body.
        queue: bodies that may wait or be worked on.
        metrics: told of each batch.
    """

    def __init__(self, run: Run, workers: int, batch: int, pixels: float, queue: int, metrics: Metrics) -> None:
        self._run, self._free, self._workers, self._batch, self._pixels, self._queue = run, workers, workers, batch, pixels, queue
        self._metrics = metrics
        self._waiting: dict[tuple[Order, Size], list[_Item]] = {}  # whose turn it is first
        self._tasks: set[asyncio.Task[None]] = set()
        self._inside = 0
        self._seconds = 0.0  # that a body takes of a worker, of late

    async def code(self, order: Order, size: Size, body: bytes) -> Result:
        """Have a body coded, together with others of the same order and size in tiles. Raises FullError."""
        if self._inside >= self._queue:
            seconds = math.ceil(self._inside * self._seconds / self._workers)
            raise FullError(min(max(1, seconds), _LONGEST))
        item = _Item(body)
        self._waiting.setdefault((order, size), []).append(item)
        self._count(1)
        try:
            self._give()
            return await item.result
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self._inside += change
        self._metrics.inside.set(self._inside)

    def _give(self) -> None:
        """Give the free workers the batches whose turn it is. What is left of a group takes its turn again behind the others."""
        while self._free and self._waiting:
            key = next(iter(self._waiting))
            group = [item for item in self._waiting.pop(key) if not item.result.done()]  # whose clients are still there
            if not group:
                continue
            most = self._most(key[1])
            if left := group[most:]:
                self._waiting[key] = left
            self._free -= 1
            task = asyncio.create_task(self._work(key[0], group[:most]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _most(self, size: Size) -> int:
        """Of bodies of a size, how many make a batch. Those of unknown size go alone, for they may be of any."""
        return min(self._batch, max(1, int(self._pixels / (math.prod(size) * TILE**2)))) if size else 1

    async def _work(self, order: Order, items: list[_Item]) -> None:
        start = perf_counter()
        waited = [start - item.came for item in items]
        try:
            results, seconds = await self._surely(order, [item.body for item in items])
            for item, result in zip(items, results, strict=True):
                if not item.result.done():  # of a client that is still there
                    item.result.set_result(result)
            self._metrics.batch_done(order.operation, waited, seconds)
            share = (perf_counter() - start) / len(items)
            self._seconds = share if not self._seconds else 0.8 * self._seconds + 0.2 * share
        finally:
            self._free += 1
            self._give()

    async def _surely(
        self, order: Order, bodies: list[bytes], attempts: int = _ATTEMPTS
    ) -> tuple[list[Result], dict[str, float]]:
        """A result for each body, also if the worker ends: then they go one by one. One that does it alone, twice, has failed."""
        try:
            return await self._run(order, bodies)
        except Exception as error:
            self._metrics.workers_lost.inc()
            _log.warning("A worker was lost with %d bodies. %s", len(bodies), str(error).partition("\n")[0])
        if len(bodies) > 1:
            return [result for body in bodies for result in (await self._surely(order, [body]))[0]], {}
        if attempts > 1:
            return await self._surely(order, bodies, attempts - 1)
        return [Failed("WorkerLost", "The process that worked on it ended.", by_request=False)], {}
