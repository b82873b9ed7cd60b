"""What a job is to do, and the chunks that it is cut into. Both travel to other processes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from dlf.runtime.codec import Codec
from dlf.runtime.corpus.storage import Entry, Storage

Operation: TypeAlias = Literal["encode", "decode", "verify"]
RESULT_SUFFIX = {"encode": ".dlf", "decode": ".png"}
ROWS = "_rows"  # the folder of shards where results are files


@dataclass(frozen=True)
class Job:
    """A job.

    Attributes:
        operation: verify compares what encode has made with its sources, and writes nothing.
        source, target: the folder of the sources and that of the results.
        open_codec: called once in each worker's process.
        parquet: whether shards hold the results; otherwise results are files, in a mirror of the source's tree.
        batch: images that go through a stage together.
        shard: images in a chunk, and so in a shard.
    """

    operation: Operation
    source: Storage
    target: Storage
    open_codec: Callable[[], Codec]
    parquet: bool = False
    batch: int = 1
    shard: int = 16

    def result(self, path: str) -> str:
        """The path of a source's result, below the target. Two sources never have one."""
        stem = path.removesuffix(".dlf") if self.operation == "decode" else path
        return stem + RESULT_SUFFIX["decode" if self.operation == "decode" else "encode"]

    def shards(self, folder: str) -> str:
        """The folder of the shards that tell of a folder's sources, below the target."""
        return folder if self.parquet else f"{ROWS}/{folder}".rstrip("/")


@dataclass(frozen=True)
class Chunk:
    """Sources of one folder, the rows of which are, or will be, in one shard.

    Attributes:
        shard: its path below the target.
        sources: files below the source; or, of a `container`, the rows of that Parquet file, of unknown size (-1).
        container: the path of a Parquet file below the source.
        attempts: how often it has failed already.
    """

    shard: str
    sources: tuple[Entry, ...]
    container: str | None = None
    attempts: int = 0

    def again(self) -> "Chunk":
        """The chunk after a failure."""
        return replace(self, attempts=self.attempts + 1)
