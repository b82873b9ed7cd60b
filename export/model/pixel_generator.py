"""The pixel generator: the decoder of a VQGAN, from its latent at 1/16 of the resolution to the image."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from dlf.export.model.attention import attention
from dlf.export.model.config import Config


def _norm(config: Config, width: int) -> nn.GroupNorm:
    return nn.GroupNorm(config.vqgan_groups, width, eps=1e-6)


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions with a residual."""

    def __init__(self, config: Config, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = _norm(config, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _norm(config, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, height, width) to (n, outputs, height, width)."""
        out = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return self.nin_shortcut(x) + out


class MapAttention(nn.Module):
    """Single-head attention over the whole map, as wide as the map."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.norm = _norm(config, width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, height, width) to the same."""
        normed = self.norm(x)
        q, k, v = (conv(normed).flatten(2).transpose(1, 2)[:, None] for conv in (self.q, self.k, self.v))
        mixed = attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(mixed)


class _Middle(nn.Module):
    """The blocks at the lowest resolution."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(config, width, width)
        self.attn_1 = MapAttention(config, width)
        self.block_2 = ResnetBlock(config, width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Upsample(nn.Module):
    """Twice the resolution: nearest neighbours, then a 3x3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, height, width) to twice the height and width."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """One resolution: ResNet blocks, with attention at the lowest, and upsampling at all but the highest."""

    def __init__(self, config: Config, inputs: int, outputs: int, lowest: bool, highest: bool) -> None:
        super().__init__()
        blocks = config.vqgan_blocks + 1
        self.block = nn.ModuleList(ResnetBlock(config, outputs if i else inputs, outputs) for i in range(blocks))
        self.attn = nn.ModuleList(MapAttention(config, outputs) if lowest else nn.Identity() for _ in range(blocks))
        self.upsample = nn.Identity() if highest else Upsample(outputs)

    def blocks(self, x: Tensor) -> Tensor:
        """The level without its upsampling."""
        for block, attn in zip(self.block, self.attn, strict=True):
            x = attn(block(x))
        return x


class PixelGenerator(nn.Module):
    """VQGAN latent to image."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = [config.vqgan_width * m for m in config.vqgan_multipliers]
        lowest = len(widths) - 1
        self.conv_in = nn.Conv2d(config.vqgan_codebook_dim, widths[-1], 3, padding=1)
        self.mid = _Middle(config, widths[-1])
        self.up = nn.ModuleList(
            Level(config, widths[min(i + 1, lowest)], widths[i], lowest=i == lowest, highest=i == 0) for i in range(len(widths))
        )
        self.norm_out = _norm(config, widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """(n, vqgan_codebook_dim, 16h, 16w) to (n, 3, 256h, 256w), about -1 to 1 and not clamped."""
        return self.upper(self.base(latent))

    def base(self, latent: Tensor) -> Tensor:
        """All that is computed at the lowest resolution, and all attention: to (n, the last width, 16h, 16w)."""
        return self.levels()[0].blocks(self.mid(self.conv_in(latent)))

    def upper(self, base: Tensor) -> Tensor:
        """The levels above it, from the first upsampling to the image."""
        lowest, *others = self.levels()
        x: Tensor = lowest.upsample(base)
        for level in others:
            x = level.upsample(level.blocks(x))
        image: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return image

    def levels(self) -> list[Level]:
        """The levels, the lowest resolution first."""
        return [cast("Level", level) for level in reversed(self.up)]
