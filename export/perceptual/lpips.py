"""LPIPS on AlexNet and VGG16 (Zhang et al., CVPR 2018, version 0.1), as a training loss and as a metric.

For training, the same features also give a distance of texture, which compares each channel's mean and standard deviation over
the picture. LPIPS alone compares position by position, and training with it blurs fine texture or replaces it by a pattern.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlf.export.perceptual import weights

Network = Literal["alexnet", "vgg16"]

# Layers as (stride, padding) of a convolution with ReLU, "tap" (a feature that is compared) or "pool".
_Layer = tuple[int, int] | str
_TWO: list[_Layer] = [(1, 1), (1, 1), "tap", "pool"]
_THREE: list[_Layer] = [(1, 1), (1, 1), (1, 1), "tap", "pool"]
_LAYERS: dict[Network, list[_Layer]] = {
    "alexnet": [(4, 2), "tap", "pool", (1, 2), "tap", "pool", (1, 1), "tap", (1, 1), "tap", (1, 1), "tap"],
    "vgg16": [*_TWO, *_TWO, *_THREE, *_THREE, *_THREE[:-1]],
}


class Features(nn.Module):
    """The convolutions of an ImageNet network, tapped before each pooling (and at each of AlexNet's last three layers)."""

    weight_0: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        for name, tensor in weights.load(network).items():
            self.register_buffer(name, tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor)

    def pool(self, x: Tensor) -> Tensor:
        """The network's own pooling between levels."""
        return F.max_pool2d(x, 3 if self.network == "alexnet" else 2, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Five maps (n, channels, height, width) of x (n, 3, height, width), which is normalised as the metric wants it."""
        x = x.to(self.weight_0.dtype).contiguous(memory_format=torch.channels_last)
        taps, convolution = [], 0
        for layer in _LAYERS[self.network]:
            if layer == "tap":
                taps.append(x)
            elif layer == "pool":
                x = self.pool(x)
            else:
                stride, padding = int(layer[0]), int(layer[1])
                weight, bias = self.get_buffer(f"weight_{convolution}"), self.get_buffer(f"bias_{convolution}")
                x = F.relu(F.conv2d(x, weight, bias, stride, padding))
                convolution += 1
        return taps


class LPIPS(nn.Module):
    """Learned perceptual distance; 0 for equal images, about 0.7 for very different ones."""

    shift: Tensor
    scale: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.features = Features(network)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        for i, weight in enumerate(weights.load(f"lpips_{network}").values()):
            self.register_buffer(f"linear_{i}", weight)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(n,) distances of images in -1..1, (n, 3, height, width); gradients flow to y alone."""
        return self.compare(x, y).lpips

    def compare(self, x: Tensor, y: Tensor, texture: bool = False) -> "Distances":
        """Return the distance of `forward`, and that of texture if it is asked for."""
        with torch.no_grad():
            reference = self.features((x - self.shift) / self.scale)
        lpips, textures = torch.zeros(len(x)), torch.zeros(len(x))
        for i, (a, b) in enumerate(zip(reference, self.features((y - self.shift) / self.scale), strict=True)):
            squared = (_unit(a) - _unit(b)).square()
            lpips = lpips + F.conv2d(squared, self.get_buffer(f"linear_{i}")).float().mean((1, 2, 3))
            if texture:
                textures = textures + _texture(a.float(), b.float()) / len(reference)
        return Distances(lpips, textures)


class Distances(NamedTuple):
    """Of image pairs, each (n,)."""

    lpips: Tensor
    texture: Tensor  # 0 to 2


def _texture(a: Tensor, b: Tensor, steady: float = 1e-2) -> Tensor:
    """Return the mean over channels of (1 - similarity of means) + (1 - similarity of standard deviations)."""
    (variance_a, mean_a), (variance_b, mean_b) = (torch.var_mean(x, (2, 3), correction=0) for x in (a, b))
    means = (2 * mean_a * mean_b + steady) / (mean_a.square() + mean_b.square() + steady)
    variance_a, variance_b = variance_a + steady, variance_b + steady
    deviations = 2 * (variance_a * variance_b).sqrt() / (variance_a + variance_b)
    return (2 - means - deviations).mean(1)


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).add(1e-20).sqrt() + 1e-10)
