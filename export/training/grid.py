"""How much stronger the spectrum of a picture is on its generator's grid than just beside it.

A generator that upsamples 16 times can leave a weave whose frequencies are multiples of 1/16 cycle a pixel.
"""

import torch
from torch import Tensor

from dlf.export.model.config import PATCH
from dlf.runtime.formats import TILE

LUMA = (0.299, 0.587, 0.114)


def grid_excess(image: Tensor) -> Tensor:
    """Mean of the log power on the grid's frequencies less that around them, of tiles; (n,) of (n, 3, 256, 256).

    About 0 for photographs; ln 2 where the grid is twice as strong as what surrounds it. In smaller squares what surrounds one of
    the grid's frequencies would belong to the next.
    """
    window = torch.hann_window(TILE, device=image.device)
    luma = torch.einsum("nchw,c->nhw", image, torch.tensor(LUMA, device=image.device))
    luma = (luma - luma.mean((1, 2), keepdim=True)) * window * window[:, None]
    power = torch.fft.fft2(luma).abs().square()

    def around(distance: int) -> Tensor:
        """The sum over the eight neighbours at a distance; without the centre, whose power may be beyond theirs by any factor."""
        steps = (-distance, 0, distance)
        return torch.stack([torch.roll(power, (a, b), (1, 2)) for a in steps for b in steps if (a, b) != (0, 0)]).sum(0)

    on, beside = (power + around(1)) / 9, around(5) / 8
    step = TILE // PATCH
    lines = ((on + 1e-6).log() - (beside + 1e-6).log())[:, ::step, ::step].flatten(1)
    return lines[:, 1:].mean(1)  # the first is the mean's
