"""Entropy models with random weights."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dlf.kernels.entropy_bin import BLOCKS, DepthBlock, EntropyTables, Layer, layer_shapes


def random_tables(
    rng: np.random.Generator,
    frequencies: Sequence[NDArray[np.uint16]],
    channels: int = 8,
    gain: float = 0.5,
    entries: int = 16,
    dim: int = 4,
) -> EntropyTables:
    """Return a valid entropy model with random weights.

    Args:
        rng: the source of the numbers.
        frequencies: of the CDFs, as `EntropyTables` has them.
        channels: of the detail latent.
        gain: about how much a layer multiplies the standard deviation of activations; from 1 on they saturate.
        entries, dim: the codebook's entries and their length.
    """
    codebook = rng.normal(size=(entries, dim))
    codebook /= np.linalg.norm(codebook, axis=1, keepdims=True)
    cdfs = len(frequencies)
    table = (channels, 5, 5)
    thresholds = np.round(256 * np.geomspace(0.12, 64, cdfs)).astype(np.int16)
    return EntropyTables(
        codebook=codebook.astype(np.float32),
        frequencies=tuple(frequencies),
        thresholds=thresholds,
        q=rng.uniform(0.5, 2, table).astype(np.float32),
        indexes=rng.integers(-1, cdfs, table).astype(np.int16),
        means=rng.integers(-2000, 2000, table).astype(np.int16),
        common=rng.integers(-2000, 2000, table).astype(np.int16),
        blocks=tuple(
            DepthBlock(**{name: random_layer(rng, *shape, gain) for name, shape in layer_shapes(channels).items()})
            for _ in BLOCKS
        ),
    )


def random_layer(rng: np.random.Generator, outputs: int, inputs: int, gain: float) -> Layer:
    """Return a layer that multiplies the standard deviation of activations by about `gain`."""
    w = rng.integers(-127, 128, (outputs, inputs))
    w = (w * np.minimum(1, 65000 / np.maximum(1, np.abs(w).sum(1)))[:, None]).astype(np.int8)
    scale = gain * 2**32 / np.maximum(1, np.sqrt((w.astype(np.float64) ** 2).sum(1)))
    m = np.minimum(scale * rng.uniform(0.5, 2, outputs), 2**31 - 1).astype(np.int32)
    b = (rng.normal(0, 64, outputs) * 2**32).astype(np.int64) + 2**31
    return Layer(w.astype(np.int8), m, b)
