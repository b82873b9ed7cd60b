"""The C++ prior equals the NumPy reference, bit by bit."""

import numpy as np
import pytest
from helpers.entropy import extreme_tables, random_tables
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dlf.kernels.entropy_bin import EntropyTables
from dlf.kernels.entropy_params_reference import entropy_params
from dlf.runtime.libdlf import EntropyModel


def assert_equal(tables: EntropyTables, r: np.ndarray, step: int) -> None:
    got_indexes, got_means = EntropyModel(tables.to_bytes()).prior_step(step, r)
    indexes, means = entropy_params(tables, step, r)
    np.testing.assert_array_equal(got_indexes, indexes)
    np.testing.assert_array_equal(got_means, means)


@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.sampled_from([4, 8, 12, 16]),
    height=st.sampled_from(range(8, 26, 2)),
    width=st.sampled_from(range(8, 18, 2)),
    step=st.integers(0, 3),
    gain=st.sampled_from([0.2, 0.5, 1.0, 4.0]),
    size=st.sampled_from([256, 8192, 2**28]),
)
@example(seed=0, channels=16, height=24, width=16, step=3, gain=4.0, size=2**28)
@settings(max_examples=40, deadline=None)
def test_random_models(seed, channels, height, width, step, gain, size):
    rng = np.random.default_rng(seed)
    r = rng.integers(-size, size, (channels, height, width), dtype=np.int32, endpoint=True)
    assert_equal(random_tables(rng, channels, gain), r, step)


@given(seed=st.integers(0, 2**32 - 1), step=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_models_at_the_limits_of_the_format(seed, step):
    rng = np.random.default_rng(seed)
    r = rng.choice([-(2**31), -32768, -1, 0, 32767, 2**31 - 1], (8, 8, 10)).astype(np.int32)
    assert_equal(extreme_tables(rng, 8), r, step)


@pytest.mark.parametrize("sign", [-1, 1])
def test_accumulators_at_their_bound(sign):
    """conv_out has 2D = 528 inputs at 132 channels: with sum|w| = 65535 and all inputs 32767 it ends near +-2^31."""
    tables = extreme_tables(np.random.default_rng(2), 132)
    for block in tables.blocks:
        block.conv.m[:] = 0
        block.conv.b[:] = 2**62  # saturates both halves
        block.conv_out.w[:] = 0
        block.conv_out.w[:, :516] = 127 * sign
        block.conv_out.w[:, 516] = 3 * sign
        block.conv_out.m[:] = 1 << 14
        block.conv_out.b[:] = 0
    assert_equal(tables, np.zeros((132, 8, 8), np.int32), 1)
