"""The nearest codebook entry of each latent token in NumPy, in float64: the reference for the C++ core and the Triton kernel."""

import numpy as np
from numpy.typing import NDArray


def vq_scores(codebook: NDArray[np.float32], z: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosines (tiles, entries, 32) between a codebook of unit vectors (entries, dim) and tokens z, (tiles, dim, 32).

    They are 0 for a token of length 0.
    """
    wide = z.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    unit = wide / np.where(length > 0, length, 1)
    scores: NDArray[np.float64] = codebook.astype(np.float64) @ unit
    return scores


def vq_lookup(codebook: NDArray[np.float32], z: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the index (tiles, 32) of the entry nearest to each token: of the largest cosine; of equals the lowest."""
    tokens: NDArray[np.uint16] = vq_scores(codebook, z).argmax(axis=1).astype(np.uint16)
    return tokens
