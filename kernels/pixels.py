"""Pictures before and after the stages, on a GPU: padding and scaling, cropping and rounding; and the test for finite floats.

The arithmetic is that of `dlf.runtime.images`, bit by bit.
"""

import triton
import triton.language as tl

from dlf.kernels.symbols import ROUNDER


@triton.jit
def pad_pixels(
    pixels: tl.tensor,
    image: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    padded_height: tl.tensor,
    padded_width: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Convert uint8 (height, width, 3) to float32 (3, padded_height, padded_width) in -1..1; repeat the last column and row."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    row, col = at // padded_width % padded_height, at % padded_width
    channel = at // (padded_height * padded_width)
    source = (tl.minimum(row, height - 1) * width + tl.minimum(col, width - 1)) * 3 + channel
    exists = channel < 3
    value = tl.load(pixels + source, mask=exists, other=0).to(tl.float32)
    tl.store(image + at, tl.div_rn(value, tl.full((block,), 255, tl.float32)) * 2 - 1, mask=exists)


@triton.jit
def crop_pixels(
    image: tl.tensor,
    pixels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    padded_height: tl.tensor,
    padded_width: tl.tensor,
    block: tl.constexpr,
) -> None:
    """Convert the upper left part of float32 (3, padded_height, padded_width), -1..1, to uint8 (height, width, 3), 0..255."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    row, col, channel = at // 3 // width, at // 3 % width, at % 3
    exists = row < height
    value = tl.load(image + (channel * padded_height + row) * padded_width + col, mask=exists, other=0)
    value = (value + 1) * 127.5  # the same bits as (value / 2 + 0.5) * 255, since halving is exact
    value = tl.where(value > 0, tl.where(value < 255, value, 255), 0)  # what is not a number becomes 0
    tl.store(pixels + at, ((value + ROUNDER) - ROUNDER).to(tl.uint8), mask=exists)


@triton.jit
def check_finite(values: tl.tensor, flag: tl.tensor, count: tl.tensor, block: tl.constexpr) -> None:
    """Set the flag to 1 where one of an image's `count` values is infinite or not a number."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    exists = at < count
    value = tl.load(values + tl.program_id(1).to(tl.int64) * count + at, mask=exists, other=0)
    finite = tl.abs(value) < float("inf")
    tl.store(flag + tl.zeros((block,), tl.int32), 1, mask=exists & ~finite)
