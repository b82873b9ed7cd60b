"""Launches the kernels: which ones, in which order, on which arrays and grids. This needs no Triton.

The caller passes a function that launches a kernel by its name: Triton's (the tests), or the driver API's with the kernels that
`compile` built ahead of time. The kernels are in entropy_params.py, symbols.py, vq_lookup.py and pixels.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dlf.kernels.entropy_bin import BLOCKS, TOKENS_PER_TILE, DepthBlock, EntropyTables, Layer

# Positions that one program takes through a depth block: the fewest rows of a tensor-core product, for a map of 768x512
# pixels has only 384 positions, far fewer than a GPU has multiprocessors for.
POSITIONS = 16
# Tokens that one program looks up, and codebook entries that it compares them with at a time.
TOKENS = 8
ENTRIES = 128
# Values that a program of an element-wise kernel works on.
VALUES = 512
# The prior's kernels, which are compiled for each padded width.
PRIOR = ("prior_begin", "prior_between", "prior_end")
# Warps of a program of each kernel.
WARPS = dict.fromkeys(PRIOR, 8) | dict.fromkeys(
    ("vq_lookup", "first_params", "quantise", "select", "update", "pad_pixels", "crop_pixels", "check_finite"), 4
)
# What D = 2C is padded to: int8 products want 32 inputs, Triton powers of two. Beyond the last a block's activations no longer
# fit a multiprocessor's registers.
WIDTHS = (32, 64, 128, 256)

# The types of the kernels' arguments, which go by the same names in every kernel; * is an array.
ARGUMENT_TYPES = {
    # PriorWeights
    "w": "*i8",
    "m": "*i32",
    "s": "*i32",
    "b": "*i64",
    "common": "*i16",
    "index_of_scale": "*i16",
    # the images' arrays: see Buffers
    "r": "*i32",
    "x": "*i16",
    "t": "*i16",
    "t_next": "*i16",
    "indexes": "*i16",
    "means": "*i16",
    # a step's symbols
    "index_table": "*i16",
    "mean_table": "*i16",
    "q": "*fp32",
    "y": "*fp32",
    "y_hat": "*fp32",
    "symbols": "*i32",
    "coded": "*i16",
    # pictures
    "pixels": "*u8",
    "image": "*fp32",
    "values": "*fp32",
    "flag": "*i32",
    # numbers
    "step": "i32",
    "count": "i32",
    "padded_height": "i32",
    "padded_width": "i32",
    "channels": "i32",
    "height": "i32",
    "width": "i32",
    "block": "i32",
    "next_block": "i32",
    # vq_lookup
    "z": "*fp32",
    "codebook": "*fp32",
    "tokens": "*u16",
    "entries": "i32",
    "dim": "i32",
}


class Launch(Protocol):
    """What launches kernels."""

    def __call__(self, kernel: str, grid: tuple[int, int], arguments: Mapping[str, Any]) -> None:
        """Launch a kernel, compiled with its `constants` and `WARPS`, on a grid (x, y) with arguments of `ARGUMENT_TYPES`."""


@dataclass(frozen=True)
class MapSizes:
    """A batch of detail latents, (images, channels, height, width); height and width are at least 8."""

    images: int
    channels: int
    height: int
    width: int

    @property
    def arguments(self) -> dict[str, int]:
        """The kernels' arguments; the number of images is the grid's."""
        return {"channels": self.channels, "height": self.height, "width": self.width}


@dataclass(frozen=True)
class PictureSizes:
    """A picture, (height, width), and what it is padded to."""

    height: int
    width: int
    padded_height: int
    padded_width: int


@dataclass(frozen=True)
class Codebook:
    """Codebook entries on the device: `values` is float32 and, unlike in an entropy.bin, (dim, entries)."""

    values: Any
    entries: int
    dim: int


@dataclass(frozen=True)
class PriorWeights:
    """The prior's tables as the kernels read them. D is padded to `d` channels whose weights are all 0."""

    d: int
    w: NDArray[np.int8]  # (6, d * (8d + 9)): conv1, conv2, conv, conv_out as [outputs][inputs], then depth_conv as [9][d]
    m: NDArray[np.int32]  # (6, 8d) multipliers in the same order: d, d, 4d, d, d
    s: NDArray[np.int32]  # (6, 8d) 128 times the sum of an output's weights
    b: NDArray[np.int64]  # (6, 8d) biases
    common: NDArray[np.int16]  # (C, 5, 5)
    index_of_scale: NDArray[np.int16]  # (65536,) CDF index of the scales -32768 .. 32767


@dataclass(frozen=True)
class Buffers:
    """Arrays on the device of one step on `images` maps; the launcher says what an array is. Pointers are multiples of 16."""

    r: Any  # int32 (images, C, height, width): the reconstruction so far in 1/256, 0 where nothing is coded yet
    x: Any  # int16 (images, height * width, d), scratch
    t: Any  # likewise
    t_next: Any  # likewise
    indexes: Any  # int16 (images, C, height, width), receives the CDF indexes, -1 where nothing is coded
    means: Any  # likewise, receives the means in 1/256


def padded_width(channels: int) -> int:
    """What D = 2 * `channels` is padded to. Raises ValueError for a latent too wide for the kernels."""
    for d in WIDTHS:
        if 2 * channels <= d:
            return d
    raise ValueError(f"the GPU's prior takes at most {WIDTHS[-1] // 2} latent channels, not {channels}: use the CPU's")


def pack_prior(tables: EntropyTables) -> PriorWeights:
    """The tables as the kernels read them. Raises ValueError for a latent too wide for the kernels."""
    d = padded_width(len(tables.q))
    w, m, s, b = (np.stack(arrays) for arrays in zip(*(_pack_block(block, d) for block in tables.blocks), strict=True))
    index_of_scale = np.searchsorted(tables.thresholds, np.arange(-32768, 32768), side="right") - 1
    return PriorWeights(d, w, m, s, b, tables.common, index_of_scale.astype(np.int16))


def constants(kernel: str, d: int) -> dict[str, int]:
    """The compile-time constants of a kernel, at the padded width `d` if it is one of the prior's."""
    if kernel == "vq_lookup":
        return {"tile": TOKENS, "chunk": ENTRIES}
    if kernel not in PRIOR:
        return {"block": VALUES}
    # The gate's inner channels that are held at a time: a chunk of weights, chunk * d bytes, lies in shared memory.
    return {"d": d, "tile": POSITIONS, "chunk": min(d, 64, 8192 // d)}


def launch_entropy_params(launch: Launch, weights: Any, buffers: Buffers, sizes: MapSizes, step: int) -> None:
    """Launch step 1, 2 or 3 of the prior: five kernels, in this order on one stream.

    `weights` has the arrays of a `PriorWeights` on the device. Step 0 depends on the map's size alone and needs no kernel.
    """
    blocks = [BLOCKS.index(name) for name in (f"adaptor_{step}", "shared_0", "shared_1", "shared_2")]
    grid = (-(-sizes.height * sizes.width // POSITIONS), sizes.images)
    layers = {"w": weights.w, "m": weights.m, "s": weights.s, "b": weights.b}
    common = {"common": weights.common, **sizes.arguments}
    t, t_next = buffers.t, buffers.t_next
    launch(
        "prior_begin",
        grid,
        {"r": buffers.r, **common, **layers, "x": buffers.x, "t_next": t, "next_block": blocks[0]},
    )
    for block, next_block in pairwise(blocks):
        arguments = {"x": buffers.x, "t": t, **layers, "t_next": t_next, "height": sizes.height, "width": sizes.width}
        launch("prior_between", grid, {**arguments, "block": block, "next_block": next_block})
        t, t_next = t_next, t
    outputs = {"index_of_scale": weights.index_of_scale, "indexes": buffers.indexes, "means": buffers.means}
    launch("prior_end", grid, {"x": buffers.x, "t": t, **layers, **outputs, **sizes.arguments, "block": blocks[-1]})


@dataclass(frozen=True)
class Symbols:
    """Arrays on the device of the four steps' symbols of `images` maps; the tables are an `EntropyTables`'s."""

    index_table: Any  # int16 (C, 5, 5), `indexes` of the tables
    mean_table: Any  # likewise, `means`
    q: Any  # float32 (C, 5, 5)
    symbols: Any  # int32 (4, images, C/4, height, width), in the stream's order
    coded: Any  # int16, likewise: the symbols' CDF indexes


def launch_first_params(launch: Launch, of: Symbols, buffers: Buffers, sizes: MapSizes) -> None:
    """Launch the kernel that writes `indexes` and `means` of step 0, where it codes."""
    arrays = {"index_table": of.index_table, "mean_table": of.mean_table, "indexes": buffers.indexes, "means": buffers.means}
    launch("first_params", _step_grid(sizes), {**arrays, **sizes.arguments})


def launch_quantise(launch: Launch, of: Symbols, buffers: Buffers, y: Any, sizes: MapSizes, step: int) -> None:
    """Launch the kernel that writes a step's `symbols` and `coded`, and `r` where it codes, from y.

    y is float32 (images, C, height, width).
    """
    inputs = {"y": y, "q": of.q, "indexes": buffers.indexes, "means": buffers.means}
    outputs = {"symbols": of.symbols, "coded": of.coded, "r": buffers.r}
    launch("quantise", _step_grid(sizes), {**inputs, **outputs, "step": step, **sizes.arguments})


def launch_select(launch: Launch, of: Symbols, buffers: Buffers, sizes: MapSizes, step: int) -> None:
    """Launch the kernel that writes a step's `coded`, from `indexes`."""
    arrays = {"indexes": buffers.indexes, "coded": of.coded}
    launch("select", _step_grid(sizes), {**arrays, "step": step, **sizes.arguments})


def launch_update(launch: Launch, of: Symbols, buffers: Buffers, y_hat: Any, sizes: MapSizes, step: int) -> None:
    """Launch the kernel that writes `r` and y_hat, where a step codes, from its `symbols`.

    y_hat is float32 (images, C, height, width).
    """
    arrays = {"symbols": of.symbols, "means": buffers.means, "q": of.q, "r": buffers.r, "y_hat": y_hat}
    launch("update", _step_grid(sizes), {**arrays, "step": step, **sizes.arguments})


def launch_pad_pixels(launch: Launch, pixels: Any, image: Any, sizes: PictureSizes) -> None:
    """Launch the kernel that writes `image` from `pixels`.

    `pixels` is uint8 (height, width, 3); `image` is float32 (3, padded_height, padded_width) in -1..1.
    """
    grid = (-(-3 * sizes.padded_height * sizes.padded_width // VALUES), 1)
    launch("pad_pixels", grid, {"pixels": pixels, "image": image, **vars(sizes)})


def launch_crop_pixels(launch: Launch, image: Any, pixels: Any, sizes: PictureSizes) -> None:
    """Launch the kernel that writes `pixels` from `image`; the arrays are those of `launch_pad_pixels`."""
    grid = (-(-3 * sizes.height * sizes.width // VALUES), 1)
    launch("crop_pixels", grid, {"image": image, "pixels": pixels, **vars(sizes)})


def launch_check_finite(launch: Launch, values: Any, flag: Any, images: int, count: int) -> None:
    """Launch the kernel that sets `flag`, int32 (1,), to 1 if one of `values` is infinite or not a number.

    `values` is float32 (images, count).
    """
    launch("check_finite", (-(-count // VALUES), images), {"values": values, "flag": flag, "count": count})


def launch_vq_lookup(launch: Launch, codebook: Codebook, z: Any, tokens: Any, tiles: int) -> None:
    """Launch the kernel that writes `tokens`, uint16 (tiles, 32): the entry nearest to each of z, float32 (tiles, dim, 32).

    A z that is not finite gives some entry or other.
    """
    arrays = {"z": z, "codebook": codebook.values, "tokens": tokens}
    launch("vq_lookup", (tiles, TOKENS_PER_TILE // TOKENS), {**arrays, "entries": codebook.entries, "dim": codebook.dim})


def _step_grid(sizes: MapSizes) -> tuple[int, int]:
    return -(-(sizes.channels // 4) * sizes.height * sizes.width // VALUES), sizes.images


def _pack_block(block: DepthBlock, d: int) -> tuple[NDArray[Any], ...]:
    """A block's w, m, s and b."""
    real = block.conv1.w.shape[0]
    # Positions of the real channels among the padded ones. conv's outputs are two halves, each padded by itself.
    one, half = np.arange(real), np.arange(2 * real)
    halves = np.concatenate([half, 2 * d + half])
    layers = [
        _pad(block.conv1, (d, d), one, one),
        _pad(block.conv2, (d, d), one, one),
        _pad(block.conv, (4 * d, d), halves, one),
        _pad(block.conv_out, (d, 2 * d), one, half),
    ]
    depthwise = _pad(block.depth_conv, (d, 9), one, np.arange(9))
    layers.append(Layer(depthwise.w.T, depthwise.m, depthwise.b))
    sums = [128 * layer.w.astype(np.int32).sum(axis=1) for layer in layers[:4]] + [np.zeros(d, np.int32)]
    return (
        np.concatenate([layer.w.ravel() for layer in layers]),
        np.concatenate([layer.m for layer in layers]),
        np.concatenate(sums).astype(np.int32),
        np.concatenate([layer.b for layer in layers]),
    )


def _pad(layer: Layer, shape: tuple[int, int], outputs: NDArray[np.intp], inputs: NDArray[np.intp]) -> Layer:
    """A layer of `shape` with the given one at those outputs and inputs, 0 elsewhere."""
    w, m, b = np.zeros(shape, np.int8), np.zeros(shape[0], np.int32), np.zeros(shape[0], np.int64)
    w[np.ix_(outputs, inputs)], m[outputs], b[outputs] = layer.w, layer.m, layer.b
    return Layer(w, m, b)
