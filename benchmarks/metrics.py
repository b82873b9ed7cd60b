"""Image quality: PSNR, MS-SSIM, LPIPS on AlexNet and VGG16, DISTS. Every metric is measured on whole images at full size."""

import math
from collections.abc import Collection

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pytorch_msssim import ms_ssim
from torch import Tensor, nn

from dlf.export.perceptual import weights
from dlf.export.perceptual.lpips import LPIPS, Features
from dlf.export.training.data import to_tensor

NAMES = ("PSNR", "MS-SSIM", "LPIPS-Alex", "LPIPS-VGG", "DISTS")


class _SmoothVGG16(Features):
    """VGG16 with the pooling of DISTS: the root of the squares under a Hann window."""

    def pool(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        hann = torch.hann_window(5, periodic=False, dtype=x.dtype)[1:-1]
        window = hann.outer(hann) / hann.outer(hann).sum()
        squares = F.conv2d(x.square(), window.expand(channels, 1, 3, 3), stride=2, padding=1, groups=channels)
        return (squares + 1e-12).sqrt()


class DISTS(nn.Module):
    """Deep Image Structure and Texture Similarity (Ding et al., TPAMI 2020), with the authors' weights; 0 for equal images."""

    alpha: Tensor
    beta: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = _SmoothVGG16("vgg16")
        learned = weights.load("dists")
        total = learned["alpha"].sum() + learned["beta"].sum()
        self.register_buffer("alpha", learned["alpha"].flatten() / total)  # of structure: means
        self.register_buffer("beta", learned["beta"].flatten() / total)  # of texture: correlations
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(n,) distances of images in -1..1, (n, 3, height, width)."""
        similarities = []
        for a, b in zip(self._maps(x), self._maps(y), strict=True):
            mean_a, mean_b = a.mean((2, 3)), b.mean((2, 3))
            variance_a, variance_b = a.var((2, 3), correction=0), b.var((2, 3), correction=0)
            covariance = (a * b).mean((2, 3)) - mean_a * mean_b
            luminance = (2 * mean_a * mean_b + 1e-6) / (mean_a.square() + mean_b.square() + 1e-6)
            structure = (2 * covariance + 1e-6) / (variance_a + variance_b + 1e-6)
            similarities.append((luminance, structure))
        luminances, structures = (torch.cat(maps, 1) for maps in zip(*similarities, strict=True))
        return 1 - luminances @ self.alpha - structures @ self.beta

    def _maps(self, x: Tensor) -> list[Tensor]:
        unit = x * 0.5 + 0.5
        return [unit, *self.features((unit - self.mean) / self.deviation)]


class Metrics:
    """Some of `NAMES`, by default all, with their networks loaded once (from PyPI, on the first use of a machine)."""

    def __init__(self, names: Collection[str] = NAMES) -> None:
        makers = {"LPIPS-Alex": lambda: LPIPS("alexnet"), "LPIPS-VGG": lambda: LPIPS("vgg16"), "DISTS": DISTS}
        self._names = names
        self._networks = {name: make() for name, make in makers.items() if name in names}

    @torch.inference_mode()
    def __call__(self, original: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> dict[str, float]:
        """Return the metrics of two sRGB images (height, width, 3) by name. PSNR is in dB; MS-SSIM needs sides of 161 or more."""
        x, y = to_tensor([original]), to_tensor([decoded])
        values = {name: float(network(x, y)) for name, network in self._networks.items()}
        if "PSNR" in self._names:
            values["PSNR"] = psnr(original, decoded)
        if "MS-SSIM" in self._names:
            values["MS-SSIM"] = float(ms_ssim(x * 127.5 + 127.5, y * 127.5 + 127.5))
        return {name: values[name] for name in NAMES if name in values}


def psnr(original: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio over all channels, in dB; infinite for equal images."""
    error = np.square(original.astype(np.float64) - decoded).mean()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
