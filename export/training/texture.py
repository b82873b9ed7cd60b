"""How far two pictures' surfaces are apart, wherever on them a thing lies: the statistics of their features, channel by channel.

DISTS (Ding et al., 2020) judges texture by the means of VGG16's channels. A loss on such statistics alone breeds a weave on the
generator's grid (runs two and three), so it belongs beside the one of `grid`.
"""

import torch
from torch import Tensor

# Of a feature's square: below it, a channel says nothing of a picture.
SMALLEST = 0.01


def texture_distance(reference: list[Tensor], taps: list[Tensor]) -> Tensor:
    """(n,) distances of features (n, channels, height, width) of several levels: 0 for the same statistics, at most 1."""
    levels = []
    for pair in zip(reference, taps, strict=True):
        means, deviations = zip(*((x.float().mean((2, 3)), x.float().var((2, 3)).add(1e-6).sqrt()) for x in pair), strict=True)
        levels += [unlike_magnitudes(*means), unlike_magnitudes(*deviations)]
    return torch.stack(levels).mean(0)


def unlike_magnitudes(a: Tensor, b: Tensor) -> Tensor:
    """(n,) means over channels of 1 - 2ab / (a^2 + b^2), of (n, channels) each, none negative."""
    return ((a - b).square() / (a.square() + b.square() + SMALLEST)).mean(1)
