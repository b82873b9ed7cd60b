"""A step of the integer prior on a GPU: section 3 of docs/format.md, bit by bit.

A step is four depth blocks. In a block, only the depthwise layer reads other positions than the one that it computes: it needs
conv1's result at the neighbours. So a kernel computes from one depthwise layer to the next: the rest of a block, then conv1 of
the following block. That makes five launches a step. Recomputing the neighbours' values instead would make conv1 three times as
expensive and still need four launches. A program computes `tile` positions, with all activations in registers; only x and conv1's
result go through memory.

An int16-by-int8 product is two int8 products on the tensor cores: with x = 256 * high + low + 128, -128 <= high, low <= 127,

    sum w * x = 256 * sum w * high + sum w * low + 128 * sum w

where the last term is a table, s. All sums are int32. Partial sums may wrap around, but the format guarantees that the final
sum fits, so that it is exact. Channels are padded (`launches.PriorWeights`); the padded ones stay 0.
"""

import triton
import triton.language as tl

from dlf.kernels import entropy_params_reference as reference

LEAKY_01 = tl.constexpr(reference.LEAKY_01)
LEAKY_001 = tl.constexpr(reference.LEAKY_001)


@triton.jit
def prior_begin(
    r: tl.tensor,
    common: tl.tensor,
    w: tl.tensor,
    m: tl.tensor,
    s: tl.tensor,
    b: tl.tensor,
    x: tl.tensor,
    t_next: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    next_block: tl.tensor,
    d: tl.constexpr,
    tile: tl.constexpr,
    chunk: tl.constexpr,
) -> None:
    """Write x = [sat16(r); common], and conv1 of the first block to t_next."""
    position, inside = positions(height, width, tile)
    channel = tl.arange(0, d)[None, :]
    row, col = position // width, position % width
    is_r = inside & (channel < channels)
    r += first_position(height, width) * channels
    coded = tl.load(r + channel * (height * width) + position, mask=is_r, other=0)
    is_common = inside & (channel >= channels) & (channel < 2 * channels)
    entry = (channel - channels) * 25 + position_class(row, height) * 5 + position_class(col, width)
    context = tl.load(common + entry, mask=is_common, other=0)
    value = sat16(tl.where(is_r, coded, context.to(tl.int32)))
    x += first_position(height, width) * d
    tl.store(x + position * d + channel, value.to(tl.int16), mask=inside)
    begin_block(value, w, m, s, b, t_next, next_block, height, width, d, tile)


@triton.jit
def prior_between(
    x: tl.tensor,
    t: tl.tensor,
    w: tl.tensor,
    m: tl.tensor,
    s: tl.tensor,
    b: tl.tensor,
    t_next: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    block: tl.tensor,
    next_block: tl.tensor,
    d: tl.constexpr,
    tile: tl.constexpr,
    chunk: tl.constexpr,
) -> None:
    """Compute a block after its conv1, in place on x, and write conv1 of the next block to t_next."""
    value = end_block(x, t, w, m, s, b, block, height, width, d, tile, chunk)
    position, inside = positions(height, width, tile)
    x += first_position(height, width) * d
    tl.store(x + position * d + tl.arange(0, d)[None, :], value.to(tl.int16), mask=inside)
    begin_block(value, w, m, s, b, t_next, next_block, height, width, d, tile)


@triton.jit
def prior_end(
    x: tl.tensor,
    t: tl.tensor,
    w: tl.tensor,
    m: tl.tensor,
    s: tl.tensor,
    b: tl.tensor,
    index_of_scale: tl.tensor,
    indexes: tl.tensor,
    means: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    block: tl.tensor,
    d: tl.constexpr,
    tile: tl.constexpr,
    chunk: tl.constexpr,
) -> None:
    """Compute the last block after its conv1, and write the CDF indexes and means of its result."""
    value = end_block(x, t, w, m, s, b, block, height, width, d, tile, chunk)
    position, inside = positions(height, width, tile)
    channel = tl.arange(0, d)[None, :]
    is_scale = inside & (channel < channels)
    is_mean = inside & (channel >= channels) & (channel < 2 * channels)
    index = tl.load(index_of_scale + (value + 32768), mask=is_scale, other=0)
    out = first_position(height, width) * channels + channel * (height * width) + position
    tl.store(indexes + out, index, mask=is_scale)
    tl.store(means + (out - channels * (height * width)), value.to(tl.int16), mask=is_mean)


@triton.jit
def begin_block(
    value: tl.tensor,
    w: tl.tensor,
    m: tl.tensor,
    s: tl.tensor,
    b: tl.tensor,
    t_next: tl.tensor,
    block: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    d: tl.constexpr,
    tile: tl.constexpr,
) -> None:
    """Write the block's conv1 and LeakyReLU of the tile's activations to t_next."""
    w += block * (d * (8 * d + 9))
    m, s, b = m + block * (8 * d), s + block * (8 * d), b + block * (8 * d)
    output = tl.arange(0, d)
    acc = add_product(accumulator(s, output, tile), value, weights(w, output, tl.arange(0, d), d))
    result = leaky(sat16(requant(acc, m, b, output)), LEAKY_001)
    position, inside = positions(height, width, tile)
    t_next += first_position(height, width) * d
    tl.store(t_next + position * d + output[None, :], result.to(tl.int16), mask=inside)


@triton.jit
def end_block(
    x: tl.tensor,
    t: tl.tensor,
    w: tl.tensor,
    m: tl.tensor,
    s: tl.tensor,
    b: tl.tensor,
    block: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    d: tl.constexpr,
    tile: tl.constexpr,
    chunk: tl.constexpr,
) -> tl.tensor:
    """Return the block's result for the tile's positions."""
    w += block * (d * (8 * d + 9))
    m, s, b = m + block * (8 * d), s + block * (8 * d), b + block * (8 * d)
    position, inside = positions(height, width, tile)
    channel = tl.arange(0, d)
    x += first_position(height, width) * d
    t += first_position(height, width) * d

    acc = tl.zeros((tile, d), tl.int32)
    for down in range(-1, 2):  # a loop to keep the nine neighbours out of the registers
        for right in tl.static_range(-1, 2):
            row, col = position // width + down, position % width + right
            in_map = inside & (row >= 0) & (row < height) & (col >= 0) & (col < width)
            neighbour = tl.load(t + (row * width + col) * d + channel[None, :], mask=in_map, other=0)
            tap = tl.load(w + (8 * d + 3 * (down + 1) + right + 1) * d + channel)
            acc += neighbour.to(tl.int32) * tap.to(tl.int32)[None, :]
    mixed = sat16(requant(acc, m, b, 7 * d + channel))

    acc = add_product(accumulator(s, d + channel, tile), mixed, weights(w, d + channel, channel, d))
    residual = tl.load(x + position * d + channel[None, :], mask=inside, other=0).to(tl.int32)
    u = sat16(requant(acc, m, b, d + channel) + residual)

    # The gate's 2d inner channels, `chunk` at a time: through conv, then at once into conv_out's sums.
    out = accumulator(s, 6 * d + channel, tile)
    for first in range(0, 2 * d, chunk):
        inner = first + tl.arange(0, chunk)
        half = add_product(accumulator(s, 2 * d + inner, tile), u, weights(w, 2 * d + inner, channel, d))
        gate = leaky(sat16(requant(half, m, b, 2 * d + inner)), LEAKY_01)
        half = add_product(accumulator(s, 4 * d + inner, tile), u, weights(w, 4 * d + inner, channel, d))
        gate = sat16(gate + leaky(sat16(requant(half, m, b, 4 * d + inner)), LEAKY_001))
        out = add_product(out, gate, weights(w + 6 * d * d, channel, inner, 2 * d))
    return sat16(requant(out, m, b, 6 * d + channel) + u)


@triton.jit
def positions(height: tl.tensor, width: tl.tensor, tile: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Return the program's positions within their map, (tile, 1), and which of them exist."""
    position = (tl.program_id(0) * tile + tl.arange(0, tile))[:, None]
    return position, position < height * width


@triton.jit
def first_position(height: tl.tensor, width: tl.tensor) -> tl.tensor:
    """Return the number of positions in the images before the program's."""
    return tl.program_id(1).to(tl.int64) * (height * width)


@triton.jit
def position_class(at: tl.tensor, count: tl.tensor) -> tl.tensor:
    """Return 0 and 1 for the first two of `count` rows (or columns), 3 and 4 for the last two, 2 for the others."""
    return tl.where(at < count - 2, tl.minimum(at, 2), at - (count - 5))


@triton.jit
def weights(w: tl.tensor, output: tl.tensor, input: tl.tensor, inputs: tl.constexpr) -> tl.tensor:
    """Load the weights of some of a layer's outputs and inputs, as the transposed matrix."""
    return tl.load(w + output[None, :] * inputs + input[:, None])


@triton.jit
def accumulator(s: tl.tensor, output: tl.tensor, tile: tl.constexpr) -> tl.tensor:
    """Return the term 128 * sum w, with which the sums of products begin."""
    return tl.zeros((tile, 1), tl.int32) + tl.load(s + output)[None, :]


@triton.jit
def add_product(acc: tl.tensor, x: tl.tensor, w: tl.tensor) -> tl.tensor:
    """Add w times x to the accumulators, without the term 128 * sum w, which `accumulator` has put there."""
    low = ((x & 255) - 128).to(tl.int8)
    high = (x >> 8).to(tl.int8)
    return tl.dot(low, w, acc, out_dtype=tl.int32) + 256 * tl.dot(high, w, out_dtype=tl.int32)


@triton.jit
def requant(acc: tl.tensor, m: tl.tensor, b: tl.tensor, output: tl.tensor) -> tl.tensor:
    """Return (acc * m + b) >> 32, clamped to 17 bits: then an int16 can be added in int32, and the sum saturates as it should."""
    product = acc.to(tl.int64) * tl.load(m + output).to(tl.int64)[None, :] + tl.load(b + output)[None, :]
    return clamp((product >> 32).to(tl.int32), -65536, 65535)


@triton.jit
def leaky(x: tl.tensor, k: tl.constexpr) -> tl.tensor:
    """Apply LeakyReLU with a slope of k / 65536."""
    return tl.where(x >= 0, x, (x * k + 32768) >> 16)


@triton.jit
def sat16(x: tl.tensor) -> tl.tensor:
    """Clamp to int16."""
    return clamp(x, -32768, 32767)


@triton.jit
def clamp(x: tl.tensor, low: tl.constexpr, high: tl.constexpr) -> tl.tensor:
    """Return the number from low to high that is nearest to x."""
    return tl.minimum(tl.maximum(x, low), high)
