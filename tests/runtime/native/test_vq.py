import numpy as np
import pytest
from helpers.entropy import VECTORS, random_tables
from hypothesis import given, settings
from hypothesis import strategies as st

from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime import errors
from dlf.runtime.libdlf import EntropyModel


def make(entries: int, dim: int, seed: int = 0) -> tuple[EntropyTables, EntropyModel]:
    tables = random_tables(np.random.default_rng(seed), 4, entries=entries, dim=dim)
    return tables, EntropyModel(tables.to_bytes())


@given(seed=st.integers(0, 2**32 - 1), tiles=st.integers(0, 3), entries=st.integers(1, 70), dim=st.integers(1, 16))
@settings(max_examples=40, deadline=None)
def test_lookup_is_the_nearest_unit_vector(seed, tiles, entries, dim):
    tables, model = make(entries, dim, seed)
    z = np.random.default_rng(seed).normal(size=(tiles, dim, 32)).astype(np.float32)
    tokens = model.vq_lookup(z)
    unit = z / np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True)
    distances = np.linalg.norm(unit[:, None] - tables.codebook.astype(np.float64)[None, :, :, None], axis=2)
    chosen = np.take_along_axis(distances, tokens[:, None].astype(np.int64), 1)[:, 0]
    # The codebook's vectors have length 1 up to float32's rounding, so the nearest by angle and by distance may differ.
    assert (chosen <= distances.min(1) + 1e-6).all()


def test_golden_indices():
    with np.load(VECTORS.parent / "golden_mini7_512x256.npz") as golden:
        z, indices, z_hat = golden["z"][:, :, 0], golden["indices"][:, 0], golden["z_hat"][:, :, 0]
    tables, _ = make(512, 12)
    codebook = tables.codebook.copy()
    codebook[:] = 0
    codebook[:, 0] = -1
    for tile in range(len(z)):
        codebook[indices[tile]] = z_hat[tile].T
    model = EntropyModel(EntropyTables(**{**vars(tables), "codebook": codebook}).to_bytes())
    np.testing.assert_array_equal(model.vq_lookup(z), indices)


@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-30, 0.1, 1.0, 1e30]))
@settings(max_examples=20, deadline=None)
def test_length_does_not_matter(seed, scale):
    _, model = make(64, 12)
    z = np.random.default_rng(seed).normal(size=(1, 12, 32)).astype(np.float32)
    scaled = z * np.float32(2.0 ** round(np.log2(scale)))  # a power of two keeps the direction exactly
    np.testing.assert_array_equal(model.vq_lookup(scaled), model.vq_lookup(z))


def test_ties_go_to_the_lowest_index():
    tables, _ = make(8, 4)
    tables.codebook[5] = tables.codebook[2]
    tables.codebook[7] = tables.codebook[2]
    model = EntropyModel(tables.to_bytes())
    z = np.repeat(tables.codebook[2][None, :, None], 32, axis=2)
    assert (model.vq_lookup(z) == 2).all()
    assert (model.vq_lookup(np.zeros_like(z)) == 0).all()


def test_embed_is_the_inverse():
    tables, model = make(100, 12)
    tokens = np.random.default_rng(1).integers(0, 100, (3, 32)).astype(np.uint16)
    z_hat = model.vq_embed(tokens)
    np.testing.assert_array_equal(z_hat, tables.codebook[tokens].transpose(0, 2, 1))
    np.testing.assert_array_equal(model.vq_lookup(z_hat), tokens)


def test_embed_refuses_tokens_outside_the_codebook():
    _, model = make(100, 12)
    tokens = np.full((1, 32), 99, np.uint16)
    model.vq_embed(tokens)
    tokens[0, 31] = 100
    with pytest.raises(errors.StreamCorruptError, match="100 entries"):
        model.vq_embed(tokens)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_lookup_refuses_what_is_not_finite(value):
    _, model = make(10, 12)
    z = np.ones((1, 12, 32), np.float32)
    z[0, 11, 31] = value
    with pytest.raises(errors.InvalidArgumentError, match="not finite"):
        model.vq_lookup(z)


def test_largest_codebook():
    tables, _ = make(1, 1)
    codebook = np.ones((65536, 1), np.float32)
    codebook[-1] = -1
    model = EntropyModel(EntropyTables(**{**vars(tables), "codebook": codebook}).to_bytes())
    assert model.token_bits == 16
    assert (model.vq_lookup(np.full((1, 1, 32), -3, np.float32)) == 65535).all()
