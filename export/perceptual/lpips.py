"""LPIPS on AlexNet and VGG16 (Zhang et al., CVPR 2018, version 0.1), as a training loss and as a metric."""

from typing import Literal

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
        with torch.no_grad():
            reference = self.taps(x)
        return self.distance(reference, self.taps(y))

    def taps(self, x: Tensor) -> list[Tensor]:
        """The features of images in -1..1, (n, 3, height, width)."""
        features: list[Tensor] = self.features((x - self.shift) / self.scale)
        return features

    def distance(self, reference: list[Tensor], taps: list[Tensor]) -> Tensor:
        """(n,) distances of two results of `taps`."""
        levels = [
            F.conv2d((_unit(a) - _unit(b)).square(), self.get_buffer(f"linear_{i}")).float().mean((1, 2, 3))
            for i, (a, b) in enumerate(zip(reference, taps, strict=True))
        ]
        return torch.stack(levels).sum(0)


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).add(1e-20).sqrt() + 1e-10)
