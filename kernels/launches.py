"""Which kernels to launch for what, on which arrays: everything about them that needs no Triton.

Whoever can launch a kernel by its name can run `entropy_params` and `vq_lookup`: Triton itself (the tests), or the driver API
with the kernels that `compile` built ahead of time. The kernels are in entropy_params.py and vq_lookup.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dlf.kernels.entropy_tables import BLOCKS, DepthBlock, EntropyTables, Layer

# Positions that one program takes through a depth block: the fewest rows of a tensor-core product, for a map of 768x512
# pixels has only 384 positions, far fewer than a GPU has multiprocessors for.
POSITIONS = 16
# Tokens that one program looks up, and codebook entries that it compares them with at a time.
TOKENS = 8
ENTRIES = 128
TOKENS_PER_TILE = 32
# Warps of a program of each kernel.
WARPS = {"prior_begin": 8, "prior_between": 8, "prior_end": 8, "vq_lookup": 4}
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
    # numbers
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
    """The compile-time constants of a kernel, at the prior's padded width `d`; vq_lookup's do not depend on it."""
    if kernel == "vq_lookup":
        return {"tile": TOKENS, "chunk": ENTRIES}
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
