"""The integer four-part prior in NumPy: section 3 of docs/format.md, as simply as it can be said.

The reference for the C++ core and for the Triton kernel, which equal it bit by bit. All arithmetic is in int64, where
nothing overflows.
"""

import numpy as np
from numpy.typing import NDArray

from dlf.kernels.entropy_bin import BLOCKS, DepthBlock, EntropyTables, Layer

Int64 = NDArray[np.int64]

LEAKY_01 = 6554  # 0.1 in 1/65536
LEAKY_001 = 655  # 0.01


def entropy_params(tables: EntropyTables, step: int, r: NDArray[np.int32]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Return CDF indexes (-1: not coded) and means (in 1/256) of one step, for every channel and position.

    `r` is the reconstruction so far, (channels, height, width) in 1/256, 0 where nothing is coded yet; at step 0 only its
    shape matters. Both results have its shape.
    """
    channels, height, width = r.shape
    if step == 0:
        return spread(tables.indexes, height, width), spread(tables.means, height, width)
    x = np.concatenate([sat16(r.astype(np.int64)), spread(tables.common, height, width).astype(np.int64)])
    for name in (f"adaptor_{step}", "shared_0", "shared_1", "shared_2"):
        x = depth_block(tables.blocks[BLOCKS.index(name)], x)
    scales, means = x[:channels], x[channels:]
    indexes = np.searchsorted(tables.thresholds, scales, side="right") - 1
    return indexes.astype(np.int16), means.astype(np.int16)


def position_class(count: int) -> NDArray[np.intp]:
    """Return the class of each of `count` rows (or columns): 0, 1 for the first two, 3, 4 for the last two, 2 for the others."""
    classes = np.full(count, 2, np.intp)
    classes[:2] = 0, 1
    classes[-2:] = 3, 4
    return classes


def spread(table: NDArray[np.int16], height: int, width: int) -> NDArray[np.int16]:
    """Expand a (channels, 5, 5) table by position class to a (channels, height, width) map."""
    return table[:, position_class(height)[:, None], position_class(width)]


def depth_block(block: DepthBlock, x: Int64) -> Int64:
    """Compute one depth block on an int16-valued (D, height, width) map."""
    t = leaky(sat16(pointwise(block.conv1, x)), LEAKY_001)
    t = sat16(depthwise(block.depth_conv, t))
    u = sat16(pointwise(block.conv2, t) + x)
    a, b = np.split(sat16(pointwise(block.conv, u)), 2)
    g = sat16(leaky(a, LEAKY_01) + leaky(b, LEAKY_001))
    return sat16(pointwise(block.conv_out, g) + u)


def pointwise(layer: Layer, x: Int64) -> Int64:
    """Compute a 1x1 convolution."""
    return requant(np.einsum("oi,ihw->ohw", layer.w.astype(np.int64), x), layer)


def depthwise(layer: Layer, x: Int64) -> Int64:
    """Compute a 3x3 convolution of each channel by itself, with zeros outside the map."""
    _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    acc = np.zeros_like(x)
    for row in range(3):
        for col in range(3):
            taps = layer.w[:, 3 * row + col].astype(np.int64)
            acc += taps[:, None, None] * padded[:, row : row + height, col : col + width]
    return requant(acc, layer)


def requant(acc: Int64, layer: Layer) -> Int64:
    """Convert accumulators to units of 1/256."""
    return (acc * layer.m.astype(np.int64)[:, None, None] + layer.b[:, None, None]) >> 32


def leaky(x: Int64, k: int) -> Int64:
    """Apply LeakyReLU with a slope of k / 65536."""
    return np.where(x >= 0, x, (x * k + 32768) >> 16)


def sat16(x: Int64) -> Int64:
    """Clamp to int16."""
    return np.clip(x, -32768, 32767)
