"""Quantisation as training sees it: the forward pass is the codec's, the backward pass takes rounding for the identity."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dlf.export.model.scalar_quantiser import STEPS, ScalarQuantiser, coded_mask
from dlf.export.model.vector_quantiser import VectorQuantiser
from dlf.export.training.ablation import VectorDetail

MIN_SCALE = 0.11  # of the codec's CDFs
MIN_PROBABILITY = 2.0**-16  # of the codec's CDFs


class _LowerBound(torch.autograd.Function):
    """max(x, bound), through which a gradient still passes where it would raise x (Balle et al., 2018)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x < bound)
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        (below,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return torch.where(below & (grad > 0), torch.zeros_like(grad), grad), None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """max(x, bound) that can be left again."""
    return _LowerBound.apply(x, bound)


def round_through(x: Tensor) -> Tensor:
    """Rounded, with the gradient of the identity."""
    return x + (torch.round(x) - x).detach()


def gaussian_bits(value: Tensor, scale: Tensor) -> Tensor:
    """Bits of values under a Gaussian of mean 0 on bins of width 1."""
    scale = lower_bound(scale, MIN_SCALE) * math.sqrt(2)
    magnitude = value.abs()
    probability = 0.5 * (torch.erfc((magnitude - 0.5) / scale) - torch.erfc((magnitude + 0.5) / scale))
    return -lower_bound(probability, MIN_PROBABILITY).log2()


class Detail(NamedTuple):
    """A quantised detail latent (n, channels, 8h, 8w), the bits of all of it, and the loss of a codebook."""

    y_hat: Tensor
    bits: Tensor
    loss: Tensor


def quantise_detail(quantiser: ScalarQuantiser, y: Tensor) -> Detail:
    """The four-part prior and rounding of `ScalarQuantiser.quantise`, differentiable and without the skip.

    A skipped symbol has a scale below 0.12, under which anything but 0 is all but impossible; so the prior learns by itself to
    skip only what is 0.
    """
    if isinstance(quantiser, VectorDetail):
        return Detail(*quantiser.nearest(y))
    step_size, scales, means, common = quantiser.prior_params(*y.shape[2:])
    scaled = y / step_size
    r, bits = torch.zeros_like(y), y.new_zeros(())
    for step in range(STEPS):
        if step:
            scales, means = quantiser.step_params(step, r, common)
        mask = coded_mask(step, *y.shape[1:]).to(y.device).expand_as(y)
        here, mean, scale = scaled[mask], means.expand_as(y)[mask], scales.expand_as(y)[mask]
        value = here - mean
        symbol = round_through(value)
        bits = bits + gaussian_bits(symbol, scale).sum()
        r = r.masked_scatter(mask, symbol + mean)
    return Detail(r * step_size, bits, y.new_zeros(()))


class Semantic(NamedTuple):
    """Quantised tokens (n, tiles, dim, 32), their loss, and their indices (n, tiles, 32)."""

    z_hat: Tensor
    loss: Tensor
    indices: Tensor


def quantise_semantic(quantiser: VectorQuantiser, z: Tensor, commitment: float = 0.25) -> Semantic:
    """Cosine VQ with a straight-through gradient; the loss draws the codebook to the latent, and the latent to the codebook with
    the weight `commitment` (VQ-VAE)."""
    unit = F.normalize(z, dim=-2)
    indices = quantiser.look_up(z)
    entries = quantiser.embed(indices)
    loss = (unit.detach() - entries).square().sum(-2).mean() + commitment * (unit - entries.detach()).square().sum(-2).mean()
    return Semantic(unit + (entries - unit).detach(), loss, indices)


@torch.no_grad()
def revive(quantiser: VectorQuantiser, usage: Tensor, z: Tensor, threshold: float) -> int:
    """Move entries whose usage, a share of all tokens, is below `threshold` of the uniform share onto latents of a batch.

    Returns how many were moved; their usage is set to the uniform share.
    """
    dead = (usage < threshold / len(usage)).nonzero()[:, 0]
    latents = F.normalize(z.transpose(-1, -2).flatten(0, -2), dim=-1)
    dead = dead[: len(latents)]
    chosen = torch.randperm(len(latents))[: len(dead)]
    quantiser.embedding.weight[dead] = latents[chosen].to(quantiser.embedding.weight.dtype)
    usage[dead] = 1 / len(usage)
    return len(dead)
