"""The VQ look-up in Triton and the C++ core against float64, and the float64 reference against the specification's words."""

import numpy as np
import pytest
from helpers import kernels as helpers_kernels
from helpers.entropy import random_tables
from numpy.typing import NDArray

from dlf.kernels import vq_lookup_reference as reference

GAP = 1e-5  # the smallest difference of the best two cosines at which float32 has to tell them apart


def unit_vectors(rng: np.random.Generator, entries: int, dim: int) -> NDArray[np.float32]:
    vectors = rng.normal(size=(entries, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def look_up(device: str, codebook: NDArray[np.float32], z: NDArray[np.float32]) -> NDArray[np.uint16]:
    return helpers_kernels.run(device, helpers_kernels.vq_lookup, codebook, z)


def tokens_as_z(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """One tile, (1, dim, 32), whose first tokens are these vectors, (count, dim); the others repeat the last."""
    padded = np.concatenate([vectors, np.repeat(vectors[-1:], 32 - len(vectors), axis=0)])
    return padded.T[None].astype(np.float32)


def test_the_reference_is_the_nearest_of_normalised_vectors():
    rng = np.random.default_rng(0)
    codebook, z = unit_vectors(rng, 50, 12), rng.normal(size=(2, 12, 32)).astype(np.float32)
    for tile, tokens in zip(z, reference.vq_lookup(codebook, z), strict=True):
        for vector, token in zip(tile.T, tokens, strict=True):
            distances = ((vector / np.linalg.norm(vector) - codebook) ** 2).sum(axis=1)
            assert distances[token] <= distances.min() + 1e-6


def test_the_core_is_the_reference():
    core = pytest.importorskip("dlf.runtime.libdlf")
    rng = np.random.default_rng(1)
    tables = random_tables(rng, 4, entries=300, dim=12)
    z = rng.normal(size=(4, 12, 32)).astype(np.float32)
    got = core.EntropyModel(tables.to_bytes()).vq_lookup(z)
    np.testing.assert_array_equal(got, reference.vq_lookup(tables.codebook, z))


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
@pytest.mark.parametrize(("entries", "dim", "tiles"), [(300, 12, 2), (128, 32, 1), (5, 3, 1), (1, 1, 1)])
def test_tokens_are_the_references_where_the_best_is_clear(device, entries, dim, tiles):
    rng = np.random.default_rng(entries)
    codebook, z = unit_vectors(rng, entries, dim), rng.normal(size=(tiles, dim, 32)).astype(np.float32)
    best = np.sort(reference.vq_scores(codebook, z), axis=1)
    clear = best[:, -1] - best[:, -2] > GAP if entries > 1 else np.full((tiles, 32), True)
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(look_up(device, codebook, z)[clear], reference.vq_lookup(codebook, z)[clear])


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
def test_length_is_without_effect(device):
    rng = np.random.default_rng(2)
    codebook, z = unit_vectors(rng, 40, 12), rng.normal(size=(1, 12, 32))
    # Squared lengths overflow and underflow float32 here, and the last tokens consist of subnormal numbers.
    lengths = np.repeat([1, 1e-25, 1e30, 5e37, 1e-30, 1e-38, 1e4, 1e-41], 4)
    z = (z / np.abs(z).max(axis=1, keepdims=True) * lengths).astype(np.float32)
    best = np.sort(reference.vq_scores(codebook, z), axis=1)
    assert (best[:, -1] - best[:, -2]).min() > GAP
    np.testing.assert_array_equal(look_up(device, codebook, z), reference.vq_lookup(codebook, z))


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
def test_of_equal_entries_the_lowest_wins(device):
    rng = np.random.default_rng(3)
    codebook = unit_vectors(rng, 300, 12)
    first, twin = [3, 7, 200, 150], [131, 9, 201, 283]  # the same lane in the next chunk; neighbours; another lane and chunk
    codebook[twin] = codebook[first]
    got = look_up(device, codebook, tokens_as_z(codebook[twin]))
    assert got[0, :4].tolist() == first


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
def test_exact_ties_of_different_entries(device):
    codebook = np.eye(12, dtype=np.float32)[::-1].copy()  # entry k is the axis 11 - k
    vectors = np.array([np.ones(12), np.arange(12) < 3, -np.ones(12), np.zeros(12)])
    # All cosines alike: entry 0. Axes 0 to 2 alike: entries 9 to 11. All alike, but negative. All 0.
    assert look_up(device, codebook, tokens_as_z(vectors))[0, :4].tolist() == [0, 9, 0, 0]


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
def test_near_ties(device):
    """Pairs of entries whose cosines to a token differ by 1.2e-5, the better one behind the other."""
    rng = np.random.default_rng(4)
    codebook = unit_vectors(rng, 200, 12)
    tokens, sides = unit_vectors(rng, 16, 12).astype(np.float64), rng.normal(size=(16, 12))
    sides -= (sides * tokens).sum(axis=1, keepdims=True) * tokens
    sides /= np.linalg.norm(sides, axis=1, keepdims=True)
    for place, cosine in ((slice(0, 16), 0.95), (slice(150, 166), 0.95 + 1.2e-5)):
        codebook[place] = cosine * tokens + np.sqrt(1 - cosine**2) * sides
    z = tokens_as_z(tokens)
    best = np.sort(reference.vq_scores(codebook, z), axis=1)
    gaps = (best[:, -1] - best[:, -2])[0, :16]
    assert gaps.min() > GAP
    assert gaps.max() < 2 * GAP
    assert look_up(device, codebook, z)[0, :16].tolist() == list(range(150, 166))


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
def test_tokens_stay_in_the_codebook_whatever_z_is(device):
    codebook = unit_vectors(np.random.default_rng(5), 7, 12)
    vectors = np.array([np.full(12, np.nan), np.full(12, np.inf), np.full(12, -np.inf)])
    with np.errstate(invalid="ignore"):
        assert look_up(device, codebook, tokens_as_z(vectors)).max() < 7
