"""Compare how two folders of images are distributed, by Kernel Inception Distance on VGG16's features.

    python -m dlf.benchmarks.kid kodak/ decoded/

The literature's patch FID and KID use Inception's features, whose weights no package carries that dlf could check. This is the
same estimate on others: **figures compare with each other, not with published ones**. It asks whether patches look like patches
of photographs, and not whether they are the right ones, so it tells of a generator only beside a metric of distortion.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from dlf.benchmarks import datasets
from dlf.export.perceptual.lpips import Features
from dlf.export.training.data import to_tensor
from dlf.runtime.errors import DLFError, InvalidArgumentError
from dlf.runtime.images import load

PATCH = 128  # pixels of a side


class PatchFeatures(nn.Module):
    """The means of the channels of VGG16's last convolution, of each patch that fits into an image without overlap."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.network = Features("vgg16")
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))  # of ImageNet
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    @torch.inference_mode()
    def forward(self, image: Tensor) -> Tensor:
        """(patches, 512) features of an image in -1..1, (1, 3, height, width)."""
        patches = F.unfold(image, PATCH, stride=PATCH).view(3, PATCH, PATCH, -1).permute(3, 0, 1, 2)
        return self.network((patches * 0.5 + 0.5 - self.mean) / self.deviation)[-1].mean((2, 3))


def kid(x: Tensor, y: Tensor) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy of two samples (n, d) and (m, d), n and m 2 at least.

    The kernel is (a b / d + 1)^3 (Bińkowski et al., Demystifying MMD GANs, ICLR 2018, section 4). It may be slightly below 0.
    """
    x, y = x.double(), y.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:  # without each one's product with itself
        products, count = kernel(a, a), len(a)
        return (products.sum() - products.trace()) / (count * (count - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def of_folders(originals: Path, decoded: Path) -> float:
    """Return the distance of the patches of two folders' images.

    Raises:
        InvalidArgumentError: a folder has no images, or fewer than two patches.
        ImageError: an image cannot be read.
    """
    features = PatchFeatures()
    return kid(*(_features(datasets.find(str(folder)), features) for folder in (originals, decoded)))


def _features(images: Sequence[Path], features: PatchFeatures) -> Tensor:
    pictures = (to_tensor([load(image)]) for image in images)
    found = [features(picture) for picture in pictures if min(picture.shape[2:]) >= PATCH]
    if sum(map(len, found)) < 2:
        raise InvalidArgumentError(f"{images[0].parent} has not two patches of {PATCH}x{PATCH} pixels.")
    return torch.cat(found)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    originals: Annotated[Path, typer.Argument(metavar="ORIGINALS", help="A folder of photographs.")],
    decoded: Annotated[Path, typer.Argument(metavar="DECODED", help="A folder of what a codec made of them.")],
) -> None:
    """Print the Kernel Inception Distance on VGG16's features of the patches of two folders of images."""
    try:
        print(f"KID on VGG16's features, patches of {PATCH}x{PATCH}: {of_folders(originals, decoded):.4f}")
    except DLFError as error:
        raise typer.BadParameter(str(error)) from error


if __name__ == "__main__":
    app(prog_name="python -m dlf.benchmarks.kid")
