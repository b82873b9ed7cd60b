"""The training's losses and starting points."""

import numpy as np
import pytest
import torch
from tests.export.training.test_train import TINY

from dlf.export.perceptual.lpips import _texture
from dlf.export.training.quantisers import quantise_semantic
from dlf.export.training.stages import COLOUR_BLOCK, Nets, colour_error


def test_texture_is_what_numpy_says() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.gamma(2, 1, (2, 2, 3, 16, 16)).astype(np.float32)
    wanted = np.zeros(2)
    for n in range(2):
        for c in range(3):
            (m, d), (k, e) = ((x[n, c].mean(), x[n, c].var()) for x in (a, b))
            wanted[n] += 2 - (2 * m * k + 0.01) / (m * m + k * k + 0.01) - 2 * np.sqrt((d + 0.01) * (e + 0.01)) / (d + e + 0.02)
    found = _texture(torch.from_numpy(a), torch.from_numpy(b))
    assert found.numpy() == pytest.approx(wanted / 3, abs=1e-5)


def test_texture_ignores_where_things_are() -> None:
    a = torch.rand(1, 4, 8, 8)
    assert _texture(a, a.flip(3)).item() == pytest.approx(0, abs=1e-3)
    assert _texture(a, torch.full_like(a, 0.5)).item() > 0.3  # the same mean, no contrast


def test_colour_error_weighs_a_lost_hue_above_lost_grain() -> None:
    red_for_green = torch.zeros(1, 3, 32, 32)
    red_for_green[:, 0], red_for_green[:, 1] = 0.5, -0.5
    grain = 0.5 * (-1.0) ** torch.arange(32).expand(1, 3, 32, 32)
    assert colour_error(red_for_green).item() == pytest.approx((0 + 0 + 1) / 3)
    assert 32 % COLOUR_BLOCK == 0 and colour_error(grain).item() == pytest.approx(0, abs=1e-6)


def test_spread_tokens_tell_tiles_apart() -> None:
    torch.manual_seed(0)
    nets = Nets(TINY)
    images = torch.rand(16, 3, 1, 1).expand(-1, -1, 256, 256) * 2 - 1 + 0.1 * torch.randn(16, 3, 256, 256)
    entries = nets.model.hybrid_codec.quantize.embedding.weight

    def places_that_differ() -> float:
        indices = quantise_semantic(nets.model.hybrid_codec.quantize, nets.model.analysis(images)[0]).indices.flatten(0, -2)
        return float((indices != indices[0]).any(0).float().mean())

    with torch.no_grad():  # all tokens of a place alike, as after a training that went wrong
        nets.model.hybrid_codec.encoder.conv_out.weight.mul_(1e-6)
        assert places_that_differ() < 0.2
        nets.spread_tokens(images)
        assert places_that_differ() > 0.9
    assert torch.allclose(entries.norm(dim=1), torch.ones(len(entries)), atol=1e-5)
