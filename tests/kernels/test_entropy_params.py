"""The Triton kernels of the prior equal its NumPy reference in every bit."""

import numpy as np
import pytest
from helpers import kernels as helpers_kernels
from helpers.conformance import WITH_STEPS, entropy_tables, prior_steps
from helpers.entropy import extreme_tables, identity_tables, random_tables

from dlf.kernels import entropy_params_reference as reference
from dlf.kernels.entropy_bin import EntropyTables


def assert_equal_to_reference(device: str, tables: EntropyTables, step: int, r: np.ndarray, tile: int) -> np.ndarray:
    """Returns the means."""
    indexes, means = helpers_kernels.run(device, helpers_kernels.entropy_params, tables, step, r, tile)
    for image, index, mean in zip(r, indexes, means, strict=True):
        want_index, want_mean = reference.entropy_params(tables, step, image)
        np.testing.assert_array_equal(index, want_index)
        np.testing.assert_array_equal(mean, want_mean)
    return means


# Neither the maps' positions nor the channels fill the kernels' blocks, with few exceptions.
@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
@pytest.mark.parametrize(
    ("channels", "images", "height", "width", "step", "tile"),
    [
        (8, 1, 8, 10, 1, 16),
        (4, 1, 8, 8, 2, 64),
        (12, 2, 10, 14, 3, 64),
        (16, 1, 8, 24, 1, 128),
        (36, 1, 14, 10, 2, 64),
        (64, 1, 8, 12, 3, 64),
    ],
)
def test_every_bit_is_the_references(device, channels, images, height, width, step, tile):
    rng = np.random.default_rng(channels)
    tables = random_tables(rng, channels, gain=0.5)
    r = rng.integers(-3000, 3000, (images, channels, height, width), dtype=np.int32)
    means = assert_equal_to_reference(device, tables, step, r, tile)
    assert np.abs(means.astype(int)).max() < 32767


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
@pytest.mark.parametrize("channels", [8, 24])
def test_saturation(device, channels):
    rng = np.random.default_rng(channels)
    r = rng.integers(-40000, 40000, (1, channels, 8, 10), dtype=np.int32)
    r[:, :, :2] = rng.choice([-(2**31), 2**31 - 1], (1, channels, 2, 10))
    means = assert_equal_to_reference(device, random_tables(rng, channels, gain=2), 2, r, tile=64)
    assert 0.01 < (np.abs(means.astype(int)) >= 32767).mean() < 0.99


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
@pytest.mark.parametrize("channels", [12, 64])
def test_the_formats_limits(device, channels):
    """The largest weights, multipliers and biases: accumulators come within 2^15 of overflow."""
    rng = np.random.default_rng(channels)
    r = rng.choice([-40000, -32768, -1, 0, 32767, 40000], (1, channels, 8, 12)).astype(np.int32)
    assert_equal_to_reference(device, extreme_tables(rng, channels), 3, r, tile=64)


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
def test_indexes_count_the_thresholds_at_or_below_the_scale(device):
    tables = identity_tables(4)  # its blocks make r the scales
    tables.thresholds[:] = 20000
    tables.thresholds[:3] = -5, 7, 7
    r = np.full((1, 4, 8, 8), -6, np.int32)
    r[0, 0, 0, :6] = -5, 6, 7, 20000, -32768, 32767
    indexes, _ = helpers_kernels.run(device, helpers_kernels.entropy_params, tables, 1, r)
    assert indexes[0, 0, 0].tolist() == [0, 0, 2, 255, -1, 255, -1, -1]


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
@pytest.mark.parametrize("name", WITH_STEPS)
def test_conformance_vectors(device, name):
    for step in prior_steps(name)[1:]:  # step 0 has no kernel
        indexes, means = helpers_kernels.run(
            device, helpers_kernels.entropy_params, entropy_tables(), step.number, step.r[None], 64
        )
        np.testing.assert_array_equal(indexes[0], step.indexes)
        np.testing.assert_array_equal(means[0], step.means)
