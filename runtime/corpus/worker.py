"""A worker: holds one open codec and does chunks. It knows nothing of Ray, which runs it in a process of its own."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from time import perf_counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dlf.runtime.codec import Codec
from dlf.runtime.corpus.job import ROWS, Chunk, Job
from dlf.runtime.corpus.rows import Row, from_shard, to_shard
from dlf.runtime.errors import BackendFailedError, BundleBrokenError, DLFError
from dlf.runtime.formats import tiles
from dlf.runtime.images import encode_as, load
from dlf.runtime.info import info

_THREADS = 8  # that read and write while the codec works; most of their time they wait for the storage
_AHEAD = 16  # files that are read before they are needed


@dataclass(frozen=True)
class Done:
    """What a worker tells of one source: its row, without the result, and whether the work was done now or before."""

    row: Row
    now: bool


@dataclass(frozen=True)
class _Item:
    """A source on its way: its row, its bytes, and what the codec takes."""

    row: Row
    data: bytes
    picture: Any = None


class Worker:
    """Does chunks of a job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._codec: Codec | None = None

    def open(self) -> Codec:
        """Open the codec, if it is not open. Raises what opening it raises."""
        self._codec = self._codec or self._job.open_codec()
        return self._codec

    def start(self) -> None:
        """Open the codec, ahead of the first chunk. Raises what opening it raises."""
        self.open()

    def run(self, chunk: Chunk) -> list[Done]:
        """Do a chunk, and tell of each of its sources.

        A chunk that has failed before is done carefully: one image at a time, each of which is noted in the target before it
        begins. So the image that ended the worker's process is known in the next attempt, and becomes a row with an error.

        Raises:
            OSError: a result or the shard cannot be written.
            BackendFailedError, BundleBrokenError: this worker cannot work. Of a careful chunk it is an error of the image.
        """
        codec = self.open()
        with ThreadPoolExecutor(_THREADS) as pool:
            kind = _Verifying if self._job.operation == "verify" else _Coding
            return kind(self._job, codec, pool, chunk).run()


class _ChunkWork:
    """What all operations do with a chunk: read its shard and its sources."""

    def __init__(self, job: Job, codec: Codec, pool: ThreadPoolExecutor, chunk: Chunk) -> None:
        self._job, self._codec, self._pool, self._chunk = job, codec, pool, chunk
        self._stored = {row.path: row for row in self._read_shard()}

    def _read_shard(self) -> list[Row]:
        try:
            there = self._job.target.size(self._chunk.shard) is not None
            return from_shard(self._job.target.read(self._chunk.shard)) if there else []
        except (pa.ArrowInvalid, KeyError):  # broken: it is written again
            return []

    def _sources(self) -> Iterator[_Item]:
        """The chunk's sources, read ahead; of one that could not be read the row has the error."""
        if self._chunk.container is None:
            return _ahead(self._pool, self._read, [entry.path for entry in self._chunk.sources])
        file = pq.ParquetFile(pa.BufferReader(self._job.source.read(self._chunk.container)))
        batches = file.iter_batches(batch_size=_AHEAD, columns=["path", "bytes"])
        return (_item(row["path"], row["bytes"] or b"") for batch in batches for row in batch.to_pylist())

    def _read(self, path: str) -> _Item:
        try:
            return _item(path, self._job.source.read(path))
        except (OSError, UnicodeError) as error:
            return _Item(_failed(Row(path, 0), error), b"")


class _Coding(_ChunkWork):
    """Encoding or decoding."""

    def __init__(self, job: Job, codec: Codec, pool: ThreadPoolExecutor, chunk: Chunk) -> None:
        super().__init__(job, codec, pool, chunk)
        self._careful = chunk.attempts > 0
        self._batch = 1 if self._careful else job.batch
        self._waiting: dict[tuple[int, int], list[_Item]] = {}
        self._note = f"{ROWS}/_suspects/{chunk.shard.replace('/', '-')}.txt"
        self._suspects = self._noted() if self._careful else []

    def run(self) -> list[Done]:
        kept: list[Row] = []
        made: list[Row] = []
        for item in self._sources():
            before = self._stored.get(item.row.path)
            if before and self._still_holds(before, item.row):
                kept.append(before)
            elif item.row.path in self._suspects:
                made.append(replace(item.row, error="it ended the process that worked on it, twice"))
            else:
                made += self._take(item)
        for group in list(self._waiting.values()):
            made += self._code(group)
        self._write(made)
        if self._careful and self._job.target.size(self._note) is not None:
            self._job.target.delete(self._note)
        return [Done(replace(row, data=None), True) for row in made] + [Done(replace(row, data=None), False) for row in kept]

    def _still_holds(self, row: Row, source: Row) -> bool:
        """Whether a stored row is of the source as it is now, with this model, and its result is there."""
        made_of = (row.source_size, row.source_sha256, row.model, row.error)
        if made_of != (source.source_size, source.source_sha256, self._codec.bundle.fingerprint, None):
            return False
        return self._job.parquet or self._job.target.size(self._job.result(row.path)) == row.size

    def _take(self, item: _Item) -> list[Row]:
        """Open a source; return the rows that are complete with it: none, its own if it fails, or those of a full batch."""
        if item.row.error:
            return [item.row]
        start = perf_counter()
        try:
            picture: Any
            if self._job.operation == "encode":
                picture = load(BytesIO(item.data))
                height, width, _ = picture.shape
            else:
                picture, found = item.data, info(item.data)
                height, width = found.height, found.width
        except Exception as error:
            return [_failed(item.row, error)]
        row = replace(item.row, width=width, height=height, seconds=perf_counter() - start)
        group = self._waiting.setdefault(tiles(height, width), [])
        group.append(_Item(row, b"", picture))
        return self._code(self._waiting.pop(tiles(height, width))) if len(group) == self._batch else []

    def _code(self, items: list[_Item]) -> list[Row]:
        """The rows of images of one padded size. If a batch fails, its images go one by one."""
        if self._careful:
            begun = [*self._suspects, items[0].row.path]
            self._job.target.write(self._note, "\n".join(begun).encode(errors="surrogateescape"))
        start = perf_counter()
        try:
            pictures = [item.picture for item in items]
            if self._job.operation == "encode":
                results = self._codec.encode_many(pictures, self._batch)
            else:
                results = [encode_as(pixels, ".png") for pixels in self._codec.decode_many(pictures, self._batch)]
        except Exception as error:
            if len(items) > 1:
                return [row for item in items for row in self._code([item])]
            if isinstance(error, (BackendFailedError, BundleBrokenError)) and not self._careful:
                raise
            return [_failed(items[0].row, error)]
        share = (perf_counter() - start) / len(items)
        model = self._codec.bundle.fingerprint
        return [
            replace(
                item.row,
                model=model,
                size=len(result),
                sha256=hashlib.sha256(result).hexdigest(),
                data=result,
                seconds=item.row.seconds + share,
            )
            for item, result in zip(items, results, strict=True)
        ]

    def _noted(self) -> list[str]:
        """The images that were begun by attempts whose process ended."""
        if self._job.target.size(self._note) is None:
            return []
        return self._job.target.read(self._note).decode(errors="surrogateescape").splitlines()

    def _write(self, made: list[Row]) -> None:
        """Write the results, and then the shard that tells of them."""
        if not self._job.parquet:
            done = [row for row in made if row.data is not None]
            targets = [self._job.result(row.path) for row in done]
            list(self._pool.map(self._job.target.write, targets, [row.data for row in done]))
            made = [replace(row, data=None) for row in made]
        rows = self._stored | {row.path: row for row in made if _is_text(row.path)}
        if rows != self._stored:
            self._job.target.write(self._chunk.shard, to_shard(rows.values()))


class _Verifying(_ChunkWork):
    """Comparing results with their sources: the hashes, the sizes of the pictures, and that they decode."""

    def run(self) -> list[Done]:
        return [Done(replace(self._verified(item), data=None), True) for item in self._sources()]

    def _verified(self, item: _Item) -> Row:
        row = self._stored.get(item.row.path)
        if item.row.error:
            return item.row
        if row is None:
            return replace(item.row, error="it has no result; run dlf corpus encode again")
        if row.error:
            return row
        if row.source_sha256 != item.row.source_sha256:
            return replace(row, error="the source has changed since; run dlf corpus encode again")
        start = perf_counter()
        try:
            result = row.data if row.data is not None else self._job.target.read(self._job.result(row.path))
            if hashlib.sha256(result).hexdigest() != row.sha256:
                return replace(row, error="its result is not what was written; delete it and run dlf corpus encode again")
            height, width, _ = self._codec.decode(result).shape
        except (DLFError, OSError) as error:
            return _failed(row, error)
        same = (width, height) == (row.width, row.height)
        return replace(row, seconds=perf_counter() - start, error=None if same else f"its result is {width}x{height}")


def _item(path: str, data: bytes) -> _Item:
    return _Item(Row(path, len(data), hashlib.sha256(data).hexdigest()), data)


def _failed(row: Row, error: Exception) -> Row:
    known = isinstance(error, (DLFError, OSError))
    return replace(row, error=f"{'' if known else 'unexpected '}{type(error).__name__}: {error}")


def _is_text(path: str) -> bool:
    """Whether a name is UTF-8, as it must be in Parquet; others are worked on and told, but are in no shard."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ahead(pool: ThreadPoolExecutor, work: Callable[[str], _Item], paths: Iterable[str]) -> Iterator[_Item]:
    """The results of `work` in the order of the paths, of which a few are worked on before they are needed."""
    waiting: deque[Future[_Item]] = deque()
    for path in paths:
        waiting.append(pool.submit(work, path))
        if len(waiting) == _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
