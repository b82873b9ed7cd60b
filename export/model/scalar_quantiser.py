"""SQ of the detail latent, and the four-part Gaussian prior that gives the arithmetic coder its distributions.

The four parts ("steps") are coded one after the other; at each step every position of the map codes one of the four
groups of channels, so that a step's prior sees all that was coded before, at the same position and around it.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlf.export.model.config import SKIP_SCALE, Config
from dlf.export.model.convolution import DepthBlock

# POSITIONS[step][group]: (row, column) in each 2x2 block of positions where that group is coded.
POSITIONS = (
    ((0, 0), (0, 1), (1, 0), (1, 1)),
    ((1, 1), (1, 0), (0, 1), (0, 0)),
    ((1, 0), (1, 1), (0, 0), (0, 1)),
    ((0, 1), (0, 0), (1, 1), (1, 0)),
)
STEPS = len(POSITIONS)
MIN_STEP_SIZE = 0.5


def coded_mask(step: int, channels: int, height: int, width: int) -> Tensor:
    """Which latents are coded at a step: (channels, height, width), bool."""
    mask = torch.zeros(channels, height, width, dtype=torch.bool)
    for group, (row, column) in enumerate(POSITIONS[step]):
        mask[group * channels // 4 : (group + 1) * channels // 4, row::2, column::2] = True
    return mask


def gather_step(x: Tensor, step: int) -> Tensor:
    """Return the latents coded at a step, (n, channels/4, height, width), of x (n, channels, height, width)."""
    masked = torch.where(coded_mask(step, *x.shape[1:]), x, torch.zeros((), dtype=x.dtype))
    return masked.unflatten(1, (4, -1)).sum(1)


class PriorParams(NamedTuple):
    """The prior's parameters before anything is coded; each (n, channels, height, width)."""

    step_size: Tensor
    scales: Tensor
    means: Tensor
    common: Tensor


class Quantised(NamedTuple):
    """A quantised latent: symbols and scales of each step, (n, channels/4, height, width), and the reconstruction."""

    symbols: list[Tensor]
    scales: list[Tensor]
    y_hat: Tensor


def _pair(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(DepthBlock(inputs, width), DepthBlock(width, outputs))


class ScalarQuantiser(nn.Module):
    """The transforms around the detail latent and its four-part prior."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, channels = config.detail_width, config.detail_channels
        self.channels = channels
        self.enc_q = nn.Parameter(torch.ones(1, width, 1, 1))
        self.dec_q = nn.Parameter(torch.ones(1, width, 1, 1))
        self.enc_trans_0 = _pair(width, width, width)
        self.enc_trans_1 = _pair(width, width, channels)
        self.dec_trans_0 = _pair(channels, width, width)
        self.dec_trans_1 = _pair(width, width, width)
        self.factorized_prior_vec = nn.Parameter(torch.randn(1, channels, 1, 1))
        self.y_prior_fusion = _pair(channels, 2 * channels, 3 * channels)
        self.y_spatial_prior_reduction = nn.Conv2d(3 * channels, channels, 1)
        for step in range(1, STEPS):
            self.add_module(f"y_spatial_prior_adaptor_{step}", DepthBlock(2 * channels, 2 * channels))
        self.y_spatial_prior = nn.Sequential(*(DepthBlock(2 * channels, 2 * channels) for _ in range(3)))

    def analyse(self, feature: Tensor) -> Tensor:
        """Detail feature (n, detail_width, 8h, 8w) to latent y (n, channels, 8h, 8w)."""
        return self.enc_trans_1(self.enc_trans_0(feature) * self.enc_q)

    def synthesise(self, y_hat: Tensor) -> Tensor:
        """The inverse of `analyse`."""
        return self.dec_trans_1(self.dec_trans_0(y_hat) * self.dec_q)

    def prior_params(self, height: int, width: int) -> PriorParams:
        """Parameters of step 0 and the context of the others. They depend on the map's size alone; n is 1."""
        params = self.y_prior_fusion(self.factorized_prior_vec.expand(1, -1, height, width))
        step_size, scales, means = params.chunk(3, 1)
        return PriorParams(step_size.clamp(min=MIN_STEP_SIZE), scales, means, self.y_spatial_prior_reduction(params))

    def step_params(self, step: int, r: Tensor, common: Tensor) -> tuple[Tensor, Tensor]:
        """Scales and means at steps 1 to 3, each (n, channels, height, width).

        Args:
            step: 1 to 3.
            r: reconstruction in units of the step size, 0 where not yet coded; (n, channels, height, width).
            common: of `prior_params`.
        """
        x = torch.cat([r, common.expand_as(r)], 1)
        scales, means = self.y_spatial_prior(self.get_submodule(f"y_spatial_prior_adaptor_{step}")(x)).chunk(2, 1)
        return scales, means

    def quantise(self, y: Tensor) -> Quantised:
        """Quantise a latent in the authors' float arithmetic (the codec itself does it in integers)."""
        step_size, scales, means, common = self.prior_params(*y.shape[2:])
        r = torch.zeros_like(y)
        all_symbols, all_scales = [], []
        for step in range(STEPS):
            if step:
                scales, means = self.step_params(step, r, common)
            scales, means = scales.expand_as(y), means.expand_as(y)
            scales = torch.where(scales < SKIP_SCALE, 0, scales)
            symbols = torch.where(scales > 0, torch.round(y / step_size - means), 0)
            r = torch.where(coded_mask(step, *y.shape[1:]), symbols + means, r)
            all_symbols.append(gather_step(symbols, step))
            all_scales.append(gather_step(scales, step))
        return Quantised(all_symbols, all_scales, r * step_size)
