"""Replace modules of the model by equal ones that take fewer operations, for the export.

The parity check compares the exported graphs with the original model, so it finds an error made here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

from dlf.export.model import DLF
from dlf.export.model.attention import TransformerBlock, attention
from dlf.export.model.config import HEAD_WIDTH
from dlf.export.model.pixel_generator import Upsample
from dlf.runtime.formats import TOKENS_PER_TILE


@contextmanager
def fused(model: DLF) -> Iterator[DLF]:
    """Replace the costly parts of the model while the block runs."""
    encoder = model.hybrid_codec.encoder
    last = len(encoder.transformer) - 1
    # The first upsampling, named last, is not replaced: its map is the smallest, and its kernel, whose sums would be stored in 32
    # bits even where weights have 16, the largest.
    upsamplings = [module for module in model.vqgan.modules() if isinstance(module, Upsample)][:-1]
    parts: list[tuple[nn.Module, str, nn.Module]] = [
        (parent, name, _transposed(child.conv))
        for parent in model.vqgan.modules()
        for name, child in parent.named_children()
        if isinstance(child, Upsample) and child in upsamplings
    ]
    parts += [
        (parent, name, _NamedNorm(child))
        for parent in model.vqgan.decoder.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.GroupNorm)
    ]
    block = encoder.transformer[last]
    if str(last) not in encoder.inter_blocks and isinstance(block, TransformerBlock):
        parts.append((encoder.transformer, str(last), _LatentsOnly(block)))
    written = [getattr(parent, name) for parent, name, _ in parts]
    for parent, name, part in parts:
        setattr(parent, name, part)
    try:
        yield model
    finally:
        for (parent, name, _), part in zip(parts, written, strict=True):
            setattr(parent, name, part)


def _transposed(conv: nn.Conv2d) -> nn.ConvTranspose2d:
    """Nearest-neighbour upsampling by 2 and then a 3x3 convolution, as one transposed convolution: 4 products an output, not 9.

    Each output sees its input pixels through a 3x3 kernel in which some of them meet two or four weights. Doubling a pixel is a
    transposed convolution with a 2x2 kernel of ones; with the 3x3 kernel after it, the two kernels are convolved.
    """
    out = nn.ConvTranspose2d(conv.in_channels, conv.out_channels, 4, stride=2, padding=1)
    flipped = conv.weight.detach().flip(2, 3).transpose(0, 1)  # a convolution is a correlation with the flipped kernel
    sums = sum(F.pad(flipped, (left, 1 - left, top, 1 - top)) for left in (0, 1) for top in (0, 1))
    assert isinstance(sums, Tensor)
    out.weight = nn.Parameter(sums, requires_grad=False)
    assert conv.bias is not None
    out.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
    return out


class _NamedNorm(nn.Module):
    """A GroupNorm whose scale and shift have the shape in which the graph takes them: so they keep their names there.

    The exporter stores what it reshapes under numbers, and the list of the generator's levels goes by names.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.num_groups, self.eps = norm.num_groups, norm.eps
        self.weight, self.bias = (
            nn.Parameter(values.detach().reshape(-1, 1, 1), requires_grad=False) for values in (norm.weight, norm.bias)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_groups, eps=self.eps) * self.weight + self.bias


class _LatentsOnly(nn.Module):
    """The encoder's last transformer block, computed for the latent tokens only: nothing reads the other tokens after it."""

    def __init__(self, block: TransformerBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """(tiles, tokens, width) to (tiles, 32, width)."""
        block, attn = self.block, self.block.attn
        width = x.shape[-1]
        normed, latents = block.ln_1(x), x[:, -TOKENS_PER_TILE:]
        q = F.linear(normed[:, -TOKENS_PER_TILE:], attn.in_proj_weight[:width], attn.in_proj_bias[:width])
        kv = F.linear(normed, attn.in_proj_weight[width:], attn.in_proj_bias[width:])
        k, v = kv.unflatten(-1, (2, attn.heads, HEAD_WIDTH)).permute(2, 0, 3, 1, 4).unbind(0)
        q = q.unflatten(-1, (attn.heads, HEAD_WIDTH)).transpose(1, 2)
        latents = latents + attn.out_proj(attention(q, k, v).transpose(1, 2).flatten(2))
        return latents + block.mlp["c_proj"](F.gelu(block.mlp["c_fc"](block.ln_2(latents))))
