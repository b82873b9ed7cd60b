"""Which kernels to launch for what, on which arrays: everything about them that needs no Triton.

Whoever can launch a kernel by its name can run them: Triton itself (the tests), or the driver API with the kernels that
`compile` built ahead of time. The kernels are in entropy_params.py, symbols.py, vq_lookup.py and pixels.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dlf.kernels.entropy_bin import BLOCKS, DepthBlock, EntropyTables, Layer

# Positions that one program takes through a depth block: the fewest rows of a tensor-core product, for a map of 768x512
# pixels has only 384 positions, far fewer than a GPU has multiprocessors for.
POSITIONS = 16
# Tokens that one program looks up, and codebook entries that it compares them with at a time.
TOKENS = 8
ENTRIES = 128
TOKENS_PER_TILE = 32
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


def launch_entropy_params(
    launch: Launch, weights: Any, buffers: Buffers, *, step: int, images: int, channels: int, height: int, width: int
) -> None:
    """Step 1, 2 or 3 of the prior on maps of height x width, both at least 8: five launches, in this order on one stream.

    `weights` has the arrays of a `PriorWeights` on the device. Step 0 depends on the map's size alone and needs no kernel.
    """
    blocks = [BLOCKS.index(name) for name in (f"adaptor_{step}", "shared_0", "shared_1", "shared_2")]
    grid = (-(-height * width // POSITIONS), images)
    layers = {"w": weights.w, "m": weights.m, "s": weights.s, "b": weights.b}
    sizes = {"channels": channels, "height": height, "width": width}
    t, t_next = buffers.t, buffers.t_next
    launch(
        "prior_begin",
        grid,
        {"r": buffers.r, "common": weights.common, **layers, "x": buffers.x, "t_next": t, **sizes, "next_block": blocks[0]},
    )
    for block, next_block in pairwise(blocks):
        arguments = {"x": buffers.x, "t": t, **layers, "t_next": t_next, "height": height, "width": width}
        launch("prior_between", grid, {**arguments, "block": block, "next_block": next_block})
        t, t_next = t_next, t
    outputs = {"index_of_scale": weights.index_of_scale, "indexes": buffers.indexes, "means": buffers.means}
    launch("prior_end", grid, {"x": buffers.x, "t": t, **layers, **outputs, **sizes, "block": blocks[-1]})


@dataclass(frozen=True)
class Symbols:
    """Arrays on the device of the four steps' symbols of `images` maps; the tables are an `EntropyTables`'s."""

    index_table: Any  # int16 (C, 5, 5), `indexes` of the tables
    mean_table: Any  # likewise, `means`
    q: Any  # float32 (C, 5, 5)
    symbols: Any  # int32 (4, images, C/4, height, width), in the stream's order
    coded: Any  # int16, likewise: the symbols' CDF indexes


def launch_first_params(
    launch: Launch, of: Symbols, buffers: Buffers, *, images: int, channels: int, height: int, width: int
) -> None:
    """One launch: `indexes` and `means` of step 0, where it codes."""
    sizes = {"channels": channels, "height": height, "width": width}
    outputs = {"indexes": buffers.indexes, "means": buffers.means}
    tables = {"index_table": of.index_table, "mean_table": of.mean_table}
    launch("first_params", _step_grid(images, **sizes), {**tables, **outputs, **sizes})


def launch_quantise(
    launch: Launch, of: Symbols, buffers: Buffers, y: Any, *, step: int, images: int, channels: int, height: int, width: int
) -> None:
    """One launch: a step's `symbols` and `coded` of y, float32 (images, C, height, width), and `r` where it codes."""
    sizes = {"channels": channels, "height": height, "width": width}
    params = {"q": of.q, "indexes": buffers.indexes, "means": buffers.means}
    outputs = {"symbols": of.symbols, "coded": of.coded, "r": buffers.r}
    launch("quantise", _step_grid(images, **sizes), {"y": y, **params, **outputs, "step": step, **sizes})


def launch_select(
    launch: Launch, of: Symbols, buffers: Buffers, *, step: int, images: int, channels: int, height: int, width: int
) -> None:
    """One launch: a step's `coded`, from `indexes`."""
    sizes = {"channels": channels, "height": height, "width": width}
    arrays = {"indexes": buffers.indexes, "coded": of.coded}
    launch("select", _step_grid(images, **sizes), {**arrays, "step": step, **sizes})


def launch_update(
    launch: Launch, of: Symbols, buffers: Buffers, y_hat: Any, *, step: int, images: int, channels: int, height: int, width: int
) -> None:
    """One launch: `r`, and y_hat, float32 (images, C, height, width), where a step codes, from its `symbols`."""
    sizes = {"channels": channels, "height": height, "width": width}
    arrays = {"symbols": of.symbols, "means": buffers.means, "q": of.q, "r": buffers.r, "y_hat": y_hat}
    launch("update", _step_grid(images, **sizes), {**arrays, "step": step, **sizes})


def launch_pad_pixels(
    launch: Launch, pixels: Any, image: Any, *, height: int, width: int, padded_height: int, padded_width: int
) -> None:
    """One launch: `image`, float32 (3, padded_height, padded_width) in -1..1, receives `pixels`, uint8 (height, width, 3)."""
    sizes = {"height": height, "width": width, "padded_height": padded_height, "padded_width": padded_width}
    launch("pad_pixels", (-(-3 * padded_height * padded_width // VALUES), 1), {"pixels": pixels, "image": image, **sizes})


def launch_crop_pixels(
    launch: Launch, image: Any, pixels: Any, *, height: int, width: int, padded_height: int, padded_width: int
) -> None:
    """One launch: the inverse."""
    sizes = {"height": height, "width": width, "padded_height": padded_height, "padded_width": padded_width}
    launch("crop_pixels", (-(-3 * height * width // VALUES), 1), {"image": image, "pixels": pixels, **sizes})


def launch_check_finite(launch: Launch, values: Any, flag: Any, *, images: int, count: int) -> None:
    """One launch: `flag`, int32 (1,), becomes 1 if one of `values`, float32 (images, count), is infinite or not a number."""
    launch("check_finite", (-(-count // VALUES), images), {"values": values, "flag": flag, "count": count})


def _step_grid(images: int, channels: int, height: int, width: int) -> tuple[int, int]:
    return -(-(channels // 4) * height * width // VALUES), images


def launch_vq_lookup(launch: Launch, codebook: Any, z: Any, tokens: Any, *, entries: int, dim: int, tiles: int) -> None:
    """One launch: `tokens`, uint16 (tiles, 32), receives the codebook entry nearest to each of z, float32 (tiles, dim, 32).

    `codebook` is float32 and, unlike in an entropy.bin, (dim, entries). A z that is not finite gives some entry or other.
    """
    grid = (tiles, TOKENS_PER_TILE // TOKENS)
    launch("vq_lookup", grid, {"z": z, "codebook": codebook, "tokens": tokens, "entries": entries, "dim": dim})


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
