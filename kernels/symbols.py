"""A step's symbols on a GPU: the encoder quantises them, the decoder reconstructs values from them; docs/format.md, 2 and 3.

These element-wise kernels run between two steps of the prior (entropy_params.py). A step's own arrays, `symbols` and `coded`,
have the stream's order, (step, image, channel within the group, row, column), so that the coder reads one contiguous piece.
"""

import triton
import triton.language as tl

from dlf.kernels.entropy_params import position_class
from dlf.kernels.symbols_reference import MAX_SYMBOL as MAX

MAX_SYMBOL = tl.constexpr(MAX)
# A float32 of this size has no fraction: adding and taking it away again rounds to the nearest, ties to even.
ROUNDER = tl.constexpr(1.5 * 2**23)


@triton.jit
def first_params(
    index_table: tl.tensor,
    mean_table: tl.tensor,
    indexes: tl.tensor,
    means: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Write CDF indexes and means of step 0, where it codes, from their (C, 5, 5) tables."""
    _, exists, in_map, in_table = entries(0, channels, height, width, block)
    tl.store(indexes + in_map, tl.load(index_table + in_table, mask=exists), mask=exists)
    tl.store(means + in_map, tl.load(mean_table + in_table, mask=exists), mask=exists)


@triton.jit
def quantise(
    y: tl.tensor,
    q: tl.tensor,
    indexes: tl.tensor,
    means: tl.tensor,
    symbols: tl.tensor,
    coded: tl.tensor,
    r: tl.tensor,
    step: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Quantise y: write a step's symbols, their CDF indexes, and r where the step codes."""
    in_step, exists, in_map, in_table = entries(step, channels, height, width, block)
    index = tl.load(indexes + in_map, mask=exists, other=-1)
    mean = tl.load(means + in_map, mask=exists, other=0).to(tl.int32)
    scaled = tl.div_rn(tl.load(y + in_map, mask=exists, other=0), tl.load(q + in_table, mask=exists, other=1))
    x = scaled - mean.to(tl.float32) * (1 / 256)  # the product is exact, so that a fused multiply-add changes nothing
    x = tl.where(x > -MAX_SYMBOL, x, -MAX_SYMBOL)  # also what is not a number
    x = tl.where(x < MAX_SYMBOL, x, MAX_SYMBOL)
    symbol = tl.where(index < 0, 0, ((x + ROUNDER) - ROUNDER).to(tl.int32))
    tl.store(symbols + in_step, symbol, mask=exists)
    tl.store(coded + in_step, index, mask=exists)
    tl.store(r + in_map, 256 * symbol + mean, mask=exists)


@triton.jit
def select(
    indexes: tl.tensor,
    coded: tl.tensor,
    step: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Write the CDF indexes that a step codes, which the decoder of its symbols needs."""
    in_step, exists, in_map, _ = entries(step, channels, height, width, block)
    tl.store(coded + in_step, tl.load(indexes + in_map, mask=exists), mask=exists)


@triton.jit
def update(
    symbols: tl.tensor,
    means: tl.tensor,
    q: tl.tensor,
    r: tl.tensor,
    y_hat: tl.tensor,
    step: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Write r and y_hat where a step codes, from its symbols."""
    in_step, exists, in_map, in_table = entries(step, channels, height, width, block)
    mean = tl.load(means + in_map, mask=exists, other=0).to(tl.int32)
    value = 256 * tl.load(symbols + in_step, mask=exists, other=0) + mean
    tl.store(r + in_map, value, mask=exists)
    tl.store(y_hat + in_map, value.to(tl.float32) * (1 / 256) * tl.load(q + in_table, mask=exists, other=0), mask=exists)


@triton.jit
def entries(
    step: tl.tensor, channels: tl.tensor, height: tl.tensor, width: tl.tensor, block: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Return, for each of the program's values in a step: its index among all steps' values, whether it exists, and its indexes
    in (images, C, height, width) and in a (C, 5, 5) table."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    positions = height * width
    group_size = channels // 4
    row, col = at % positions // width, at % width
    channel = (((2 * (row % 2) + col % 2) ^ ((4 - step) & 3)) * group_size) + at // positions
    image = tl.program_id(1).to(tl.int64)
    in_step = (step * tl.num_programs(1) + image) * (group_size * positions) + at
    in_map = image * (channels * positions) + channel * positions + at % positions
    in_table = (channel * 5 + position_class(row, height)) * 5 + position_class(col, width)
    return in_step, at < group_size * positions, in_map, in_table
