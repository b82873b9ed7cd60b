"""What is to do: walks the source, folder by folder, and cuts it into chunks.

Sources that have a row already come in the chunk of that row's shard, so that a worker finds out with one reading which of them
have changed. The others make new chunks. At most one folder's names are in memory.
"""

import hashlib
import posixpath
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dlf.runtime.corpus.job import Chunk, Job
from dlf.runtime.corpus.rows import SUFFIX
from dlf.runtime.corpus.storage import Entry, Storage

_READERS = 16  # shards that are read at a time


def is_source(job: Job, path: str) -> bool:
    """Whether a file is one that the job works on, by its suffix."""
    suffix = posixpath.splitext(path)[1].lower()
    return suffix == ".dlf" if job.operation == "decode" else suffix in _image_suffixes()


def is_container(path: str) -> bool:
    """Whether a file holds sources as rows."""
    return path.endswith(SUFFIX)


def count(job: Job) -> int:
    """How many sources there are."""
    total = 0
    for _, entries in job.source.walk():
        total += sum(is_source(job, entry.path) for entry in entries)
        total += sum(len(_paths(job.source, entry.path)) for entry in entries if is_container(entry.path))
    return total


def chunks(job: Job, ignore: Callable[[int], None] = lambda count: None) -> Iterator[Chunk]:
    """All chunks of a job; `ignore` is told how many files of a folder are no sources. Raises what `Storage.walk` raises."""
    with ThreadPoolExecutor(_READERS) as pool:
        for folder, entries in job.source.walk():
            ignore(sum(not is_source(job, entry.path) and not is_container(entry.path) for entry in entries))
            containers = [entry.path for entry in entries if is_container(entry.path)]
            for container in containers:
                rows = tuple(Entry(path, -1) for path in _paths(job.source, container))
                if rows:
                    yield Chunk(_shard(job, folder, [container]), rows, container)
                else:
                    ignore(1)
            sources = {entry.path: entry for entry in entries if is_source(job, entry.path)}
            if not sources:
                continue
            shards = [entry.path for entry in _shards(job, folder)]
            for shard, paths in zip(shards, pool.map(partial(_paths, job.target), shards), strict=True):
                known = tuple(sources.pop(path) for path in paths if path in sources)
                if known:
                    yield Chunk(shard, known)
            new = list(sources.values())
            for start in range(0, len(new), job.shard):
                part = new[start : start + job.shard]
                yield Chunk(_shard(job, folder, [entry.path for entry in part]), tuple(part))


@cache
def _image_suffixes() -> set[str]:
    formats = Image.registered_extensions()
    return {suffix for suffix, name in formats.items() if name in Image.OPEN and suffix != ".dlf"}


def _shards(job: Job, folder: str) -> list[Entry]:
    return [entry for entry in job.target.entries(job.shards(folder))[0] if is_container(entry.path)]


def _shard(job: Job, folder: str, paths: Sequence[str]) -> str:
    """The path of a new shard: the same for the same sources, so that a chunk done twice is there once."""
    name = hashlib.sha256("\n".join(paths).encode(errors="surrogateescape")).hexdigest()[:16]
    return posixpath.join(job.shards(folder), f"part-{name}{SUFFIX}")


def _paths(storage: Storage, shard: str) -> list[str]:
    """The paths in a Parquet file; none if it is broken, and then it is written again."""
    try:
        return [str(path) for path in pq.read_table(pa.BufferReader(storage.read(shard)), columns=["path"])["path"].to_pylist()]
    except (pa.ArrowInvalid, KeyError):
        return []
