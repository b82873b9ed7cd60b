"""The distance of texture asks what a surface is like, not where on it a thing lies."""

import torch

from dlf.export.training.texture import texture_distance


def features(seed: int, contrast: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [1 + contrast * torch.rand(2, channels, side, side, generator=generator) for channels, side in ((6, 32), (12, 16))]


def test_the_same_surface_elsewhere_is_no_distance() -> None:
    taps = features(0)
    moved = [x.roll((3, 5), (2, 3)) for x in taps]
    torch.testing.assert_close(texture_distance(taps, moved), torch.zeros(2), atol=1e-6, rtol=0)


def test_a_flat_surface_is_farther_than_another_piece_of_the_same_kind() -> None:
    taps = features(0)
    flat = [x.mean((2, 3), keepdim=True).expand_as(x) for x in taps]
    same_kind, flattened = texture_distance(taps, features(1)), texture_distance(taps, flat)
    assert bool((same_kind < 0.01).all()) and bool((flattened > 0.2).all()) and bool((flattened <= 1).all())


def test_the_closed_form_for_one_channel() -> None:
    # Means 1 and 2, deviations 0: (1 - 2)^2 / (1 + 4 + 0.01) of the means, nothing of the deviations.
    one, two = (torch.full((1, 1, 4, 4), value) for value in (1.0, 2.0))
    torch.testing.assert_close(texture_distance([one], [two]), torch.tensor([1 / 5.01 / 2]), rtol=1e-4, atol=1e-6)
