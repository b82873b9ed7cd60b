"""Pictures whose colours are another's, and a decoder that learns to hear whose they are.

A decoder that has the whole detail hears no token: the detail says all that they say. So the detail of some tiles is that of a
hybrid (Oliva, Torralba and Schyns, 2006): the fine structure of the tile, the coarse colours of another. The tile's own colours
stand in its tokens alone, and colours in the detail that may be another's are not worth their bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dlf.export.training.proxy import COLUMNS, ROWS
from dlf.runtime.formats import TILE


def coarse(image: Tensor) -> Tensor:
    """What tokens tell of images (n, 3, 256h, 256w): the mean colours of their cells, and straight lines between."""
    means = F.avg_pool2d(image, (TILE // ROWS, TILE // COLUMNS))
    return F.interpolate(means, size=image.shape[2:], mode="bilinear", align_corners=False)


def hybrids(image: Tensor) -> Tensor:
    """Images (n, 3, 256h, 256w), -1 to 1, each with the coarse colours of the one before it; a single one remains as it is."""
    low = coarse(image)
    return (image - low + low.roll(1, 0)).clamp(-1, 1)


@dataclass(frozen=True)
class Taught:
    """What a codec makes of tiles: the decoder's inputs, and the latent that it gave the pixel generator."""

    z_hat: Tensor  # (n, 1, 1, codebook_dim, 32)
    y_hat: Tensor  # (n, detail_channels, 8, 8)
    y_hat_hybrid: Tensor  # of the hybrid with another tile
    logits: Tensor  # (n, vqgan_codebook_size, 16, 16), float16

    @staticmethod
    def join(parts: Sequence["Taught"]) -> "Taught":
        """The tiles of all parts."""
        return Taught(*(torch.cat([getattr(p, name) for p in parts]) for name in ("z_hat", "y_hat", "y_hat_hybrid", "logits")))

    def batch(self, chosen: Tensor) -> tuple[Tensor, ...]:
        """The four tensors of some tiles."""
        return self.z_hat[chosen], self.y_hat[chosen], self.y_hat_hybrid[chosen], self.logits[chosen].float()
