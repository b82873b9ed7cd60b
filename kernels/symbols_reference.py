"""A step's symbols in NumPy: sections 2 and 3 of docs/format.md; the reference for the Triton kernels. Maps are (C, H, W)."""

import numpy as np
from numpy.typing import NDArray

from dlf.kernels.entropy_bin import EntropyTables
from dlf.kernels.entropy_params_reference import position_class

MAX_SYMBOL = 1 << 20  # in size; what a stream can hold
# The group that each step codes at a position: format.md's table, by (row mod 2, col mod 2).
GROUPS = (((0, 1), (2, 3)), ((3, 2), (1, 0)), ((2, 3), (0, 1)), ((1, 0), (3, 2)))


def coded_channels(step: int, channels: int, height: int, width: int) -> NDArray[np.intp]:
    """Return the channel, (C/4, H, W), of each value of a step, in the stream's order."""
    groups = np.tile(np.array(GROUPS[step]), (height // 2, width // 2))
    return groups * (channels // 4) + np.arange(channels // 4)[:, None, None]


def select(step: int, values: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the values of a map that a step codes, (C/4, H, W)."""
    return np.take_along_axis(values, coded_channels(step, *values.shape), axis=0)


def quantise(
    tables: EntropyTables, step: int, y: NDArray[np.float32], indexes: NDArray[np.int16], means: NDArray[np.int16]
) -> NDArray[np.int32]:
    """Return a step's symbols (C/4, H, W) of the latent y, from maps of the step's CDF indexes and means."""
    at = coded_channels(step, *y.shape)
    x = np.take_along_axis(y / _spread_q(tables, y.shape), at, axis=0) - np.take_along_axis(means, at, axis=0) / np.float32(256)
    symbols = np.rint(np.clip(x, -MAX_SYMBOL, MAX_SYMBOL)).astype(np.int32)
    return np.where(np.take_along_axis(indexes, at, axis=0) < 0, 0, symbols)


def update(
    tables: EntropyTables,
    step: int,
    symbols: NDArray[np.int32],
    means: NDArray[np.int16],
    r: NDArray[np.int32],
    y_hat: NDArray[np.float32],
) -> None:
    """Set r, in 1/256, and y_hat where a step codes."""
    at = coded_channels(step, *r.shape)
    np.put_along_axis(r, at, 256 * symbols + np.take_along_axis(means, at, axis=0), axis=0)
    values = r.astype(np.float32) / 256 * _spread_q(tables, r.shape)
    np.put_along_axis(y_hat, at, np.take_along_axis(values, at, axis=0), axis=0)


def _spread_q(tables: EntropyTables, shape: tuple[int, ...]) -> NDArray[np.float32]:
    _, height, width = shape
    return tables.q[:, position_class(height)[:, None], position_class(width)]
