"""The content of `entropy.bin` as NumPy arrays: codebook, CDFs and the integer four-part prior.

The byte format is section 4 of docs/format.md. Values are not judged here: the entropy core refuses a file
that breaks the format's rules.
"""

import math
import struct
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

MAGIC = b"DLFE"
VERSION, VERSION_WITH_TOKENS = 1, 2
TOKENS_PER_TILE = 32
BLOCKS = ("adaptor_1", "adaptor_2", "adaptor_3", "shared_0", "shared_1", "shared_2")


@dataclass(frozen=True)
class Layer:
    """An integer linear layer: requant(w @ x; m, b) = (w @ x * m + b) >> 32 for each output."""

    w: NDArray[np.int8]  # (outputs, inputs); a depthwise layer has its 9 taps as inputs, row-major
    m: NDArray[np.int32]  # (outputs,), not negative
    b: NDArray[np.int64]  # (outputs,), at most 2^62 in size, the rounding constant 2^31 included


@dataclass(frozen=True)
class DepthBlock:
    """A depth block at width D, twice the latent's channels."""

    conv1: Layer  # (D, D)
    depth_conv: Layer  # (D, 9)
    conv2: Layer  # (D, D)
    conv: Layer  # (4D, D)
    conv_out: Layer  # (D, 2D)


@dataclass(frozen=True)
class EntropyTables:
    """What decoding depends on, apart from the neural stages. C is the number of the detail latent's channels, N that of CDFs."""

    codebook: NDArray[np.float32]  # (entries, dimension), unit vectors
    frequencies: tuple[NDArray[np.uint16], ...]  # N CDFs: 2c+2 frequencies of the values -c..c and the escape, sum 65536
    thresholds: NDArray[np.int16]  # (N,), ascending: the scale, in 1/256, from which each CDF is used
    q: NDArray[np.float32]  # (C, 5, 5) quantisation step, by the position's class in both directions
    indexes: NDArray[np.int16]  # (C, 5, 5) CDF index at step 0
    means: NDArray[np.int16]  # (C, 5, 5) mean at step 0, in 1/256
    common: NDArray[np.int16]  # (C, 5, 5) context of the later steps, in 1/256
    blocks: tuple[DepthBlock, ...]  # in the order of BLOCKS
    token_frequencies: NDArray[np.uint16] | None = None  # (32, entries), of each place in a tile; each row's sum is 65536

    def to_bytes(self) -> bytes:
        """Return the tables as `entropy.bin`. Raises ValueError if shapes do not fit each other or values their types."""
        entries, dimension = self.codebook.shape
        channels, cdfs = len(self.q), len(self.frequencies)
        version = VERSION if self.token_frequencies is None else VERSION_WITH_TOKENS
        parts = [
            MAGIC + struct.pack("<5I", version, channels, entries, dimension, cdfs),
            _pack(self.codebook, np.float32, (entries, dimension)),
            _pack(np.array([len(f) // 2 - 1 for f in self.frequencies]), np.uint16, (cdfs,)),
            *(_pack(f, np.uint16, (len(f) // 2 * 2,)) for f in self.frequencies),
            _pack(self.thresholds, np.int16, (cdfs,)),
            _pack(self.q, np.float32, (channels, 5, 5)),
            *(_pack(table, np.int16, (channels, 5, 5)) for table in (self.indexes, self.means, self.common)),
        ]
        if len(self.blocks) != len(BLOCKS):
            raise ValueError(f"{len(self.blocks)} blocks, not {len(BLOCKS)}")
        for block in self.blocks:
            for name, (outputs, inputs) in layer_shapes(channels).items():
                layer: Layer = getattr(block, name)
                parts.append(_pack(layer.w, np.int8, (outputs, inputs)))
                parts.append(_pack(layer.m, np.int32, (outputs,)))
                parts.append(_pack(layer.b, np.int64, (outputs,)))
        if self.token_frequencies is not None:
            parts.append(_pack(self.token_frequencies, np.uint16, (TOKENS_PER_TILE, entries)))
        return b"".join(parts)

    @staticmethod
    def from_bytes(data: bytes) -> "EntropyTables":
        """Read what `to_bytes` wrote. Raises ValueError if the data do not have the layout of an `entropy.bin`."""
        reader = _Reader(data)
        if reader.bytes(4) != MAGIC:
            raise ValueError("not an entropy.bin: its magic is missing")
        version, channels, entries, dimension, cdfs = struct.unpack("<5I", reader.bytes(20))
        if version not in (VERSION, VERSION_WITH_TOKENS):
            raise ValueError(f"entropy.bin of version {version}, not {VERSION} or {VERSION_WITH_TOKENS}")
        table = (channels, 5, 5)
        codebook = reader.array(np.float32, (entries, dimension))
        bounds = reader.array(np.uint16, (cdfs,))
        tables = EntropyTables(
            codebook=codebook,
            frequencies=tuple(reader.array(np.uint16, (2 * int(c) + 2,)) for c in bounds),
            thresholds=reader.array(np.int16, (cdfs,)),
            q=reader.array(np.float32, table),
            indexes=reader.array(np.int16, table),
            means=reader.array(np.int16, table),
            common=reader.array(np.int16, table),
            blocks=tuple(
                DepthBlock(
                    **{
                        name: Layer(
                            w=reader.array(np.int8, (outputs, inputs)),
                            m=reader.array(np.int32, (outputs,)),
                            b=reader.array(np.int64, (outputs,)),
                        )
                        for name, (outputs, inputs) in layer_shapes(channels).items()
                    }
                )
                for _ in BLOCKS
            ),
            token_frequencies=reader.array(np.uint16, (TOKENS_PER_TILE, entries)) if version == VERSION_WITH_TOKENS else None,
        )
        if reader.left:
            raise ValueError(f"{reader.left} bytes after the end of entropy.bin")
        return tables


def layer_shapes(channels: int) -> dict[str, tuple[int, int]]:
    """Return (outputs, inputs) of a depth block's layers, in the file's order, for a latent of `channels` channels."""
    d = 2 * channels
    return {"conv1": (d, d), "depth_conv": (d, 9), "conv2": (d, d), "conv": (4 * d, d), "conv_out": (d, 2 * d)}


def _pack(array: NDArray[np.generic], kind: type[np.generic], shape: tuple[int, ...]) -> bytes:
    """Return the array's little-endian bytes as `kind`. Raises ValueError for another shape, or if a value would change."""
    if array.shape != shape:
        raise ValueError(f"an array of shape {array.shape} where {shape} is due")
    packed = array.astype(np.dtype(kind).newbyteorder("<"))
    if not np.array_equal(packed, array, equal_nan=packed.dtype.kind == "f"):
        raise ValueError(f"values that do not fit {kind.__name__}")
    return packed.tobytes()


class _Reader:
    """Takes arrays off the front of `data`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def bytes(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError("entropy.bin is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def array(self, kind: type[Scalar], shape: tuple[int, ...]) -> NDArray[Scalar]:
        stored = np.dtype(kind).newbyteorder("<")
        return np.frombuffer(self.bytes(math.prod(shape) * stored.itemsize), stored).astype(kind).reshape(shape)
