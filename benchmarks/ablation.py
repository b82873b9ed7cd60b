"""What each part of the model is worth: models that were trained alike, with and without it, on the same images.

    python -m dlf.export.training.train run export/training/ablation.toml --cache CACHE --run runs/full
    python -m dlf.export.training.train run export/training/ablation.toml --cache CACHE --run runs/scalar --without scalar
    python -m dlf.benchmarks.ablation runs/full/codec.safetensors runs/scalar/codec.safetensors --json ablation.json

They are measured in PyTorch, since a model whose detail is quantised by a codebook has no file: the rate is what the prior says
that the detail takes, with the tokens at their fixed width, without the header and the checksum of a file.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dlf.benchmarks import datasets, machine
from dlf.benchmarks.metrics import NAMES, Metrics
from dlf.export.model import DLF
from dlf.export.training import ablation
from dlf.export.training.stages import generate, whole
from dlf.runtime.errors import DLFError
from dlf.runtime.files import write_atomically
from dlf.runtime.formats import TILE, TOKENS_PER_TILE
from dlf.runtime.images import crop_to_pixels, load, pad_to_tiles


@dataclass(frozen=True)
class Means:
    """A model's bits per pixel and metrics, means over the images."""

    model: str
    bpp: float
    metrics: dict[str, float]


@torch.inference_mode()
def code(model: DLF, pixels: NDArray[np.uint8]) -> tuple[float, NDArray[np.uint8]]:
    """Bits per pixel, and what comes back of an image (height, width, 3), which is padded as in the codec."""
    height, width = pixels.shape[:2]
    padded = torch.from_numpy(pad_to_tiles(pixels))
    coded = whole(model, padded)
    output = generate(model, model.vqgan.quantize(coded.logits))
    tokens = TOKENS_PER_TILE * math.log2(model.config.codebook_size) / TILE**2
    bpp = (float(coded.bpp) + tokens) * padded[0, 0].numel() / (height * width)
    return bpp, crop_to_pixels(output.numpy(), height, width)


def measure(file: Path, images: Sequence[Path], metrics: Metrics) -> Means:
    """The means of a file of weights, which is named by its folder."""
    model, name = ablation.load(file), file.resolve().parent.name
    found = []
    for image in track(images, name, console=Console(stderr=True), transient=True):
        pixels = load(image)
        bpp, decoded = code(model, pixels)
        found.append({"bpp": bpp, **metrics(pixels, decoded)})
    means = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    return Means(name, means.pop("bpp"), means)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    weights: Annotated[
        list[Path], typer.Argument(metavar="WEIGHTS...", help="Files that training wrote, each in a folder of its own.")
    ],
    dataset: Annotated[str, typer.Option(help="kodak, or a folder of images.")] = "kodak",
    metrics: Annotated[str, typer.Option(help="Of the metrics of dlf-bench.")] = ",".join(NAMES),
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Rewritten after each model.")] = None,
) -> None:
    """Compare models that were trained alike."""
    measured, means = Metrics(metrics.split(",")), []
    try:
        images = datasets.find(dataset)
        for file in weights:
            means.append(measure(file, images, measured))
            if json_file:
                report = {"machine": machine.describe(), "images": len(images), "means": [asdict(one) for one in means]}
                write_atomically(json_file, json.dumps(report, indent=1).encode())
    except DLFError as error:
        raise typer.BadParameter(str(error)) from error
    shown = Table("trained", "bpp", *means[0].metrics, box=box.SIMPLE_HEAD)
    for one in means:
        shown.add_row(one.model, f"{one.bpp:.4f}", *(f"{value:.3f}" for value in one.metrics.values()))
    Console().print(shown)


if __name__ == "__main__":
    app(prog_name="python -m dlf.benchmarks.ablation")
