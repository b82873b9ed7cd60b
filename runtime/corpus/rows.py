"""The table of what a job has made: one row an image, in Parquet shards, one shard a chunk of work.

A shard is written after the results that it tells of, so that what it says is there is there.
"""

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

SUFFIX = ".parquet"


@dataclass(frozen=True)
class Row:
    """What became of one image.

    Attributes:
        path: of the source, below the source's folder.
        source_size, source_sha256: of the source; the hash is hexadecimal.
        model: the fingerprint of the model.
        width, height: of the image, in pixels; 0 if it failed.
        size, sha256: of the result.
        data: the column `bytes`: the result itself where shards hold results; None where they lie beside them, as files.
        seconds: for reading the picture and its share of the coding.
        error: None, or the class and the message of what went wrong.
    """

    path: str
    source_size: int
    source_sha256: str = ""
    model: str = ""
    width: int = 0
    height: int = 0
    size: int = 0
    sha256: str = ""
    data: bytes | None = None
    seconds: float = 0.0
    error: str | None = None


SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("source_size", pa.int64()),
        ("source_sha256", pa.string()),
        ("model", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
        ("bytes", pa.large_binary()),
        ("seconds", pa.float64()),
        ("error", pa.string()),
    ]
)
_FIELDS = [field.name for field in fields(Row)]  # in the order of the columns


def to_shard(rows: Iterable[Row]) -> bytes:
    """Rows as the bytes of a Parquet file, sorted by path."""
    values = sorted((astuple(row) for row in rows), key=lambda value: str(value[0]))
    columns = [list(column) for column in zip(*values, strict=True)] or [[] for _ in _FIELDS]
    table = pa.Table.from_pydict(dict(zip(SCHEMA.names, columns, strict=True)), SCHEMA)
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def from_shard(data: bytes) -> list[Row]:
    """The rows of a shard. Raises ArrowInvalid or KeyError: it is none."""
    table = pq.read_table(pa.BufferReader(data)).select(SCHEMA.names)
    return [Row(*values) for values in zip(*table.to_pydict().values(), strict=True)]
