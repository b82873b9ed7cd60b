"""The training's losses and starting points."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.export.training.test_train import TINY

from dlf.export.training.quantisers import quantise_semantic
from dlf.export.training.stages import COLOUR_BLOCK, Coded, Nets, Targets, colour_error, dropped, lack_of_spread, spherical_means

TWO_LAYERS = replace(TINY, vit_layers=2)


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


@torch.no_grad()
def test_a_semantic_decoder_that_starts_again_hears_its_tokens_and_tells_places_apart() -> None:
    torch.manual_seed(0)
    nets = Nets(TINY)
    nets.reset_semantic_decoder()
    y_hat = torch.zeros(2, TINY.detail_channels, 8, 8)
    semantic, _ = nets.model.synthesis(torch.randn(2, 1, 1, TINY.codebook_dim, 32), y_hat)
    assert float((semantic[0] - semantic[1]).std()) > 0.01
    assert float(semantic[0].std((1, 2)).mean()) > 0.1
    for block in nets.model.hybrid_codec.decoder.inter_blocks.values():
        assert float(block.zero_add.weight.abs().max()) == 0


@torch.no_grad()
def test_targets_are_what_the_model_itself_gives() -> None:
    torch.manual_seed(0)
    nets, images = Nets(TWO_LAYERS), torch.rand(2, 3, 256, 256) * 2 - 1
    targets = Targets.of(nets.model, images)
    coded = Coded(nets.model, images, 0.25, torch.zeros(2, dtype=torch.bool))
    encoder = nets.model.hybrid_codec.encoder
    torch.testing.assert_close(targets.logits.float(), coded.logits, rtol=1e-2, atol=1e-2)
    z = encoder.read_tokens(encoder.transformer[-1](targets.tokens.float()))
    torch.testing.assert_close(z, coded.z[:, 0, 0], rtol=1e-1, atol=1e-2)
    assert len(Targets.join([targets, targets]).y_hat) == 4


@torch.no_grad()
def test_an_image_without_detail_has_a_latent_of_zeros_and_costs_nothing() -> None:
    torch.manual_seed(0)
    nets, images = Nets(TINY), torch.rand(2, 3, 256, 256) * 2 - 1
    both = Coded(nets.model, images, 0.25, torch.tensor([False, True]))
    first = Coded(nets.model, images[:1], 0.25, torch.tensor([False]))
    assert float(both.y_hat[1].abs().max()) == 0
    torch.testing.assert_close(both.y_hat[:1], first.y_hat)
    torch.testing.assert_close(both.bpp, first.bpp)


def test_detail_is_dropped_at_the_asked_rate_and_never_from_a_whole_batch() -> None:
    rng = torch.Generator().manual_seed(0)
    drops = torch.stack([dropped(8, 0.25, rng) for _ in range(500)])
    assert float(drops.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert not bool(dropped(4, 1.0, rng).all())
    assert not bool(np.any(dropped(4, 0.0, rng).numpy()))


def test_spherical_means_find_the_directions_of_bundles_of_points() -> None:
    torch.manual_seed(0)
    directions = torch.eye(5)
    points = torch.nn.functional.normalize(directions.repeat(40, 1) + 0.05 * torch.randn(200, 5), dim=1)
    means = spherical_means(points, 20)  # more than directions, so that chance leaves none out
    assert float((means @ directions.T).amax(0).min()) > 0.99
    torch.testing.assert_close(means.norm(dim=1), torch.ones(20))


def test_tokens_lack_spread_where_tiles_are_alike_and_not_where_they_differ() -> None:
    torch.manual_seed(0)
    same, different = torch.randn(1, 12, 32).expand(16, -1, -1), torch.randn(16, 12, 32)
    assert float(lack_of_spread(same)) == pytest.approx(1)
    assert float(lack_of_spread(different)) == 0
