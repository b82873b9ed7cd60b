"""The grid's measure on pictures whose grid is known."""

import math

import pytest
import torch

from dlf.export.training.grid import grid_excess


def noise() -> torch.Tensor:
    return 0.3 * torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))


def test_noise_has_no_grid_and_a_weave_has() -> None:
    wave = torch.cos(2 * torch.pi * torch.arange(256) / 4)
    plain = grid_excess(noise())
    weave = grid_excess(noise() + 0.5 * wave + 0.5 * wave[:, None])
    assert plain.tolist() == pytest.approx([0, 0], abs=0.1)
    assert all(float(after) > float(before) + 0.1 for after, before in zip(weave, plain, strict=True))


def test_a_wave_off_the_grid_does_not_count() -> None:
    wave = noise() + torch.cos(2 * torch.pi * torch.arange(256) * 24 / 256)
    assert grid_excess(wave).tolist() == pytest.approx(grid_excess(noise()).tolist(), abs=0.05)


def test_the_measure_does_not_depend_on_contrast() -> None:
    assert grid_excess(0.5 * noise()).tolist() == pytest.approx(grid_excess(noise()).tolist(), abs=1e-3)
    assert all(math.isfinite(v) for v in grid_excess(torch.zeros(1, 3, 256, 256)).tolist())


def test_a_gradient_lowers_it() -> None:
    weave = (noise() + 0.5 * torch.cos(2 * torch.pi * torch.arange(256) / 8)).requires_grad_()
    (gradient,) = torch.autograd.grad(grid_excess(weave).sum(), weave)
    assert float(grid_excess(weave - 1.0 * gradient / gradient.abs().max()).sum()) < float(grid_excess(weave).sum())
