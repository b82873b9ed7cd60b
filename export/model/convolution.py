"""The convolutional blocks of the detail branch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNeXtBlock(nn.Module):
    """Depthwise 5x5 and MLP on a channels-last map (n, height, width, channels)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.ones(1, width, 1, 1))
        self.conv = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(n, height, width, channels) to the same."""
        mixed = self.conv(x.permute(0, 3, 1, 2) * self.layer_scale).permute(0, 2, 3, 1)
        return x + self.mlp(self.norm(mixed))


class _DepthConv(nn.Module):
    """First half of a depth block: mixes positions, may change the width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(inputs, inputs, 1))
        self.depth_conv = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs)
        self.conv2 = nn.Conv2d(inputs, outputs, 1)
        self.adaptor = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.depth_conv(F.leaky_relu(self.conv1(x), 0.01)))
        return out + (x if self.adaptor is None else self.adaptor(x))


class _GatedMLP(nn.Module):
    """Second half of a depth block: mixes channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 4 * width, 1)
        self.conv_out = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv(x).chunk(2, 1)
        return x + self.conv_out(F.leaky_relu(a, 0.1) + F.leaky_relu(b, 0.01))


class DepthBlock(nn.Module):
    """Depthwise-separable block of the scalar quantiser, (n, inputs, height, width) to (n, outputs, height, width)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block = nn.Sequential(_DepthConv(inputs, outputs), _GatedMLP(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, height, width) to (n, outputs, height, width)."""
        return self.block(x)
