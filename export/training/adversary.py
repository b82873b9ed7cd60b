"""A projected discriminator (Sauer et al., 2021): small heads on frozen AlexNet features, and one on the pixels.

LPIPS and the heads read the same features, which makes the adversarial loss almost free. AlexNet's first layer takes each fourth
pixel, so that a grid of that period is invisible to it; the head on the pixels sees it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (64, 192, 384, 256, 256)  # of AlexNet's taps
WIDTH = 64


class Discriminator(nn.Module):
    """Logits of "a photograph", one map for each tap and one for the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, WIDTH, 1), nn.LeakyReLU(0.2), nn.Conv2d(WIDTH, 1, 3, padding=1)) for c in CHANNELS
        )
        self.pixels = nn.Sequential(
            nn.Conv2d(3, WIDTH // 2, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH // 2, WIDTH, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, 1, 3, padding=1),
        )

    def forward(self, image: Tensor, taps: list[Tensor]) -> list[Tensor]:
        """Maps of logits (n, 1, height, width) of images (n, 3, height, width), -1 to 1, and their AlexNet features."""
        units = [F.normalize(tap.float(), dim=1) * tap.shape[1] ** 0.5 for tap in taps]
        return [head(x) for head, x in zip(self.heads, units, strict=True)] + [self.pixels(image)]


def critic_loss(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """The hinge loss of the discriminator, the mean over its maps; 2 where it can't tell, 0 where it always can."""
    return torch.stack([F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake, strict=True)]).mean()


def deceive_loss(fake: list[Tensor]) -> Tensor:
    """The loss of the generator: less the logits, the mean over the maps."""
    return -torch.stack([f.mean() for f in fake]).mean()


def balance(main: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """The sum of two gradients at images (n, 3, height, width), the other scaled to `share` (n,) of the norm of the main one.

    The scale of a discriminator's logits drifts; this keeps the weight of its opinion the same throughout.
    """
    norms = [g.flatten(1).norm(dim=1)[:, None, None, None] for g in (main, other)]
    return main + share[:, None, None, None] * norms[0] / (norms[1] + 1e-12) * other
