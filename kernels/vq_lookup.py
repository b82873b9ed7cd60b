"""The nearest codebook entry of each latent token on a GPU: normalisation, scores and argmax in one kernel.

Between unit vectors the smallest distance is the largest dot product, |a - b|^2 = 2 - 2ab, and a token's length scales all of
its dot products alike. So a token is not brought to length 1 but only to a size at which float32 neither overflows nor
vanishes. A program keeps, for each of its tokens and each of `chunk` lanes, the best of the entries that the lane has seen,
and compares lanes once at the end: no score is ever written.
"""

import triton
import triton.language as tl


@triton.jit
def vq_lookup(
    z: tl.tensor,
    codebook: tl.tensor,
    tokens: tl.tensor,
    entries: tl.tensor,
    dim: tl.tensor,
    tile: tl.constexpr,
    chunk: tl.constexpr,
) -> None:
    """Find the nearest unit vector of the codebook (dim, entries) for each token of z, (tiles, dim, 32); of equals, the first."""
    token = tl.program_id(1) * tile + tl.arange(0, tile)
    lane = tl.arange(0, chunk)
    z += tl.program_id(0).to(tl.int64) * (dim * 32)

    largest = tl.zeros((tile,), tl.float32)
    for i in range(dim):
        largest = tl.maximum(largest, tl.abs(tl.load(z + i * 32 + token)))
    scale = 1 / tl.minimum(tl.maximum(largest, 1e-30), 1e30)

    best = tl.full((chunk, tile), float("-inf"), tl.float32)
    best_entry = tl.zeros((chunk, tile), tl.int32)
    for first in range(0, entries, chunk):
        entry = first + lane
        score = tl.zeros((chunk, tile), tl.float32)
        for i in range(dim):
            vector = tl.load(codebook + i * entries + entry, mask=entry < entries, other=0)
            score += vector[:, None] * (tl.load(z + i * 32 + token) * scale)[None, :]
        better = (score > best) & (entry < entries)[:, None]
        best = tl.where(better, score, best)
        best_entry = tl.where(better, entry[:, None], best_entry)
    found = tl.min(tl.where(best == tl.max(best, axis=0)[None, :], best_entry, entries), axis=0)
    tl.store(tokens + tl.program_id(0) * 32 + token, found.to(tl.uint16))
