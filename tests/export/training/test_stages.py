"""The training's losses and starting points."""

import numpy as np
import pytest
import torch
from tests.export.training.test_train import TINY

from dlf.export.training.stages import (
    COLOUR_BLOCK,
    Coded,
    Nets,
    Stage,
    colour_error,
    dropped,
    generate,
    generate_window,
    perplexity,
    spherical_means,
    unlike,
)


def test_colour_error_weighs_a_lost_hue_above_lost_grain() -> None:
    red_for_green = torch.zeros(1, 3, 32, 32)
    red_for_green[:, 0], red_for_green[:, 1] = 0.5, -0.5
    grain = 0.5 * (-1.0) ** torch.arange(32).expand(1, 3, 32, 32)
    assert colour_error(red_for_green).item() == pytest.approx((0 + 0 + 1) / 3)
    assert 32 % COLOUR_BLOCK == 0 and colour_error(grain).item() == pytest.approx(0, abs=1e-6)


@torch.no_grad()
def test_an_image_without_detail_has_a_latent_of_zeros_and_costs_nothing() -> None:
    torch.manual_seed(0)
    nets, images = Nets(TINY), torch.rand(2, 3, 256, 256) * 2 - 1
    both = Coded(nets.model, images, 0.25, torch.tensor([False, True]))
    first = Coded(nets.model, images[:1], 0.25, torch.tensor([False]))
    assert float(both.y_hat[1].abs().max()) == 0
    torch.testing.assert_close(both.y_hat[:1], first.y_hat)
    torch.testing.assert_close(both.bpp, first.bpp)


@torch.no_grad()
def test_a_window_shows_the_same_place_of_the_image_and_of_what_is_generated() -> None:
    torch.manual_seed(0)
    model = Nets(TINY).model
    # As upper levels: what is below them, enlarged, so that there is an image that they return exactly.
    enlarge = torch.nn.Upsample(scale_factor=16)
    model.vqgan.decoder.upper = lambda base: enlarge(base[:, :3])  # type: ignore[method-assign]
    latent = torch.randn(5, TINY.vqgan_codebook_dim, 16, 32)
    image = generate(model, latent)
    rng = torch.Generator().manual_seed(0)
    windows = [generate_window(model, latent, image, 3, rng) for _ in range(4)]
    for shown, generated in windows:
        assert shown.shape == (5, 3, 48, 48)
        assert torch.equal(shown, generated)
    assert not torch.equal(windows[0][0], windows[1][0])


@torch.no_grad()
def test_a_window_of_the_whole_image_is_the_image() -> None:
    torch.manual_seed(0)
    model, image = Nets(TINY).model, torch.rand(2, 3, 256, 256)
    latent = torch.randn(2, TINY.vqgan_codebook_dim, 16, 16)
    shown, generated = generate_window(model, latent, image, 16, torch.Generator().manual_seed(0))
    assert torch.equal(shown, image)
    torch.testing.assert_close(generated, generate(model, latent))


def test_detail_is_dropped_at_the_asked_rate_and_from_a_whole_batch_only_where_none_is_asked_for() -> None:
    rng = torch.Generator().manual_seed(0)
    drops = torch.stack([dropped(8, 0.25, rng) for _ in range(500)])
    assert float(drops.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert not bool(dropped(4, 0.999, rng).all())
    assert bool(dropped(4, 1.0, rng).all())
    assert not bool(np.any(dropped(4, 0.0, rng).numpy()))


def test_spherical_means_find_the_directions_of_bundles_of_points() -> None:
    torch.manual_seed(0)
    directions = torch.eye(5)
    points = torch.nn.functional.normalize(directions.repeat(40, 1) + 0.05 * torch.randn(200, 5), dim=1)
    means = spherical_means(points, 20)  # more than directions, so that chance leaves none out
    assert float((means @ directions.T).amax(0).min()) > 0.99
    torch.testing.assert_close(means.norm(dim=1), torch.ones(20))


def test_tokens_are_unlike_codes_by_their_angle_alone() -> None:
    codes = torch.nn.functional.normalize(torch.randn(2, 1, 1, 12, 32, generator=torch.Generator().manual_seed(0)), dim=3)
    assert float(unlike(7 * codes, codes)) == pytest.approx(0, abs=1e-6)
    assert float(unlike(-codes, codes)) == pytest.approx(2)


def test_perplexity_counts_the_entries_that_are_used_alike() -> None:
    assert perplexity(torch.tensor([5.0, 5.0, 0.0, 5.0, 5.0])) == pytest.approx(4)
    assert perplexity(torch.tensor([3.0, 0.0])) == pytest.approx(1)


def test_the_share_of_hybrids_goes_from_its_first_to_its_last_value() -> None:
    stage = Stage("a", "finetune", 1, 0.1, 4, hybrid=(0.5, 0.1))
    assert [stage.at(progress).hybrid[0] for progress in (0, 0.5, 1)] == pytest.approx([0.5, 0.3, 0.1])


def test_the_grid_is_not_asked_for_on_windows_in_which_it_cannot_be_told() -> None:
    Stage("paint", "finetune", 1.0, 0.001, 8, grid=0.1, window=16)
    with pytest.raises(ValueError, match="stage paint: the grid is told on whole tiles"):
        Stage("paint", "finetune", 1.0, 0.001, 8, grid=0.1, window=8)


def test_a_share_of_the_batches_is_generated_whole_and_they_alone_have_the_grid() -> None:
    stage = Stage("paint", "finetune", 1.0, 0.001, 8, grid=0.1, window=8, whole=0.25)
    drawn = {coin: stage.at(0.5, coin) for coin in (0.0, 0.24, 0.26, 1.0)}
    assert [(s.window, s.grid, s.tiles) for s in drawn.values()] == [(0, 0.1, 4), (0, 0.1, 4), (8, 0.0, 8), (8, 0.0, 8)]
