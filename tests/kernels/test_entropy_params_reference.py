"""The reference itself, against float64 arithmetic in PyTorch and against values worked out by hand."""

import numpy as np
import pytest
import torch
from helpers.entropy import identity_tables, random_tables
from torch.nn import functional

from dlf.kernels import entropy_params_reference as reference
from dlf.kernels.entropy_bin import DepthBlock, Layer


def float_block(block: DepthBlock, x: torch.Tensor) -> torch.Tensor:
    """The specification's depth block in float64, on activations in units of 1."""

    def conv(layer: Layer, x: torch.Tensor, groups: int = 1) -> torch.Tensor:
        multiplier = torch.from_numpy(layer.m.astype(np.float64) / 2**32)
        weight = torch.from_numpy(layer.w.astype(np.float64)) * multiplier[:, None]
        bias = torch.from_numpy((layer.b - 2**31) / 2**32 / 256)  # b holds the rounding constant
        side = 3 if groups > 1 else 1
        return functional.conv2d(x, weight.reshape(len(weight), -1, side, side), bias, padding=side // 2, groups=groups)

    t = functional.leaky_relu(conv(block.conv1, x), 0.01)
    u = conv(block.conv2, conv(block.depth_conv, t, groups=x.shape[1])) + x
    a, b = conv(block.conv, u).chunk(2, dim=1)
    return u + conv(block.conv_out, functional.leaky_relu(a, 0.1) + functional.leaky_relu(b, 0.01))


def test_depth_block_is_the_float_block_but_for_rounding():
    rng = np.random.default_rng(0)
    block = random_tables(rng, channels=8, gain=0.5).blocks[0]
    x = rng.integers(-2000, 2000, (16, 10, 12)).astype(np.int64)
    got = reference.depth_block(block, x)
    want = float_block(block, torch.from_numpy(x / 256)[None])[0].numpy() * 256
    assert np.abs(want).max() < 32000  # nothing saturated, or the two would differ
    assert np.abs(got - want).max() < 6
    assert np.abs(got - want).mean() < 1


@pytest.mark.parametrize(
    ("x", "k", "want"), [(300, 655, 300), (-100, 655, -1), (-49, 655, 0), (-25, 6554, -3), (-32768, 6554, -3277)]
)
def test_leaky(x, k, want):
    assert reference.leaky(np.array([x]), k) == [want]


def test_requant_rounds_towards_minus_infinity_after_the_bias():
    layer = Layer(np.zeros((3, 1), np.int8), np.full(3, 2**31 - 1, np.int32), np.array([0, 2**31, -1]))
    acc = np.array([-1, 3, 0]).reshape(3, 1, 1)
    # -(2^31 - 1) / 2^32; (3 * (2^31 - 1) + 2^31) / 2^32 = 2 - 3/2^32; -1 / 2^32
    assert reference.requant(acc, layer).ravel().tolist() == [-1, 1, -1]


def test_position_classes():
    assert reference.position_class(8).tolist() == [0, 1, 2, 2, 2, 2, 3, 4]


def test_spread_takes_rows_first():
    table = np.arange(25, dtype=np.int16).reshape(1, 5, 5)
    assert reference.spread(table, 8, 10)[0, 0, -1] == 4
    assert reference.spread(table, 8, 10)[0, -2, 1] == 16


def test_index_counts_the_thresholds_at_or_below_the_scale():
    tables = identity_tables(4)
    tables.thresholds[:] = 20000
    tables.thresholds[:3] = -5, 7, 7
    r = np.full((4, 8, 8), -6, np.int32)  # the identity blocks make r the scales
    r[0, 0, :4] = -5, 6, 7, 20000
    indexes, means = reference.entropy_params(tables, 1, r)
    assert indexes[0, 0, :5].tolist() == [0, 0, 2, 255, -1]
    assert not means.any()
