"""Runs a job on Ray: a number of actors, each a `Worker` in its own process, and one loop that gives them chunks.

Ray Data would carry rows from process to process. Here only names and rows without results travel, since workers read and write
the storage themselves, and what is left of an engine is this loop. When a worker's process or node ends, its chunk is given to
another, and a new worker is asked for, which starts where there is room.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dlf.runtime.cluster import ray
from dlf.runtime.corpus.job import Chunk, Job
from dlf.runtime.corpus.plan import chunks
from dlf.runtime.corpus.report import Report
from dlf.runtime.corpus.rows import Row
from dlf.runtime.corpus.worker import Done, Worker
from dlf.runtime.errors import BackendFailedError, DLFError

_log = logging.getLogger(__name__)
_ATTEMPTS = 3  # of a chunk
_PATIENCE = 60.0  # seconds without any worker, after which a warning says why


def run(
    job: Job,
    workers: int | None = None,
    cpus: int = 1,
    gpus: float = 0,
    tell: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Do a job on the cluster that this process is connected to, and return its report.

    Args:
        job: what is to do.
        workers: processes that work; by default as many as the cluster has room for when the job starts.
        cpus, gpus: that each worker takes of its node.
        tell: called with the report so far, after each chunk and at least every second.

    Raises:
        DLFError: no worker can open its codec: what opening it raises; or no worker stays alive.
        OSError: the source cannot be listed.
    """
    resources = ray.cluster_resources()
    room = min(resources.get("CPU", 0) // cpus, resources.get("GPU", 0) // gpus if gpus else float("inf"))
    count = workers or max(1, int(room))
    return _Loop(job, count, {"num_cpus": cpus, "num_gpus": gpus}, tell).run()


class _Loop:
    def __init__(self, job: Job, workers: int, resources: dict[str, float], tell: Callable[[Report], None]) -> None:
        self._job, self._tell = job, tell
        self._actors: Any = ray.remote(Worker).options(**resources, max_restarts=0)
        self._report = Report(job.operation, workers=workers)
        self._new = chunks(job, self._ignore)
        self._again: deque[Chunk] = deque()
        self._calls: dict[Any, tuple[Any, Chunk | None]] = {}  # a chunk, or None where the worker opens its codec
        self._idle: list[Any] = []
        self._lost_in_a_row = 0

    def run(self) -> Report:
        for _ in range(self._report.workers):
            self._hire()
        silent = 0.0
        try:
            while True:
                finished, _ = ray.wait(list(self._calls), num_returns=1, timeout=1)
                for call in finished:
                    self._take(call)
                silent = 0 if finished or any(chunk for _, chunk in self._calls.values()) else silent + 1
                if silent == _PATIENCE:
                    _log.warning("No worker has started yet. The cluster has free: %s.", ray.available_resources())
                if self._is_over():
                    self._tell(self._report)
                    return self._report
                self._tell(self._report)
        finally:
            for actor in [*self._idle, *(actor for actor, _ in self._calls.values())]:
                ray.kill(actor)

    def _ignore(self, files: int) -> None:
        self._report.ignored += files

    def _is_over(self) -> bool:
        """Whether nothing is left to do. Workers that have not started yet are not waited for."""
        return bool(self._idle) and not any(chunk for _, chunk in self._calls.values())

    def _hire(self) -> None:
        actor = self._actors.remote(self._job)
        self._calls[actor.start.remote()] = (actor, None)

    def _take(self, call: Any) -> None:
        """Take what a call has come to, and give its worker the next chunk."""
        actor, chunk = self._calls.pop(call)
        try:
            found = ray.get(call)
        except ray.exceptions.RayTaskError as error:  # what the worker raised
            cause = error.cause if isinstance(error.cause, Exception) else error
            if chunk is None:
                raise (
                    cause if isinstance(cause, (DLFError, OSError)) else BackendFailedError(f"No worker starts: {cause}.")
                ) from error
            self._retry(chunk, cause, _ATTEMPTS)
        except ray.exceptions.RayError as error:  # its process or its node ended
            self._replace(error)
            if chunk is not None:
                self._retry(chunk, error, _ATTEMPTS + len(chunk.sources))  # each of them may be one that ends a process
            return
        else:
            if chunk is not None:
                self._report.add(found)
            self._lost_in_a_row = 0
        self._idle.append(actor)
        self._give()

    def _give(self) -> None:
        while self._idle:
            chunk = self._again.popleft() if self._again else next(self._new, None)
            if chunk is None:
                return
            actor = self._idle.pop()
            self._calls[actor.run.remote(chunk)] = (actor, chunk)

    def _replace(self, error: Exception) -> None:
        self._report.workers_lost += 1
        self._lost_in_a_row += 1
        _log.warning("A worker was lost; its work is given to another. %s", str(error).partition("\n")[0])
        if self._lost_in_a_row > _ATTEMPTS * (self._report.workers + self._job.shard):
            raise BackendFailedError(f"Workers end as soon as they start; the last one said: {error}")
        self._hire()

    def _retry(self, chunk: Chunk, error: Exception, attempts: int) -> None:
        if chunk.attempts + 1 < attempts:
            self._again.append(chunk.again())
            self._give()
            return
        fact = f"{type(error).__name__}: {error}".partition("\n")[0]
        self._report.add(Done(replace(Row(source.path, source.size), error=fact), True) for source in chunk.sources)
