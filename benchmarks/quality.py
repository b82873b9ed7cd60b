"""Quality of a bundle on a set of photographs, from real file bytes, beside AVIF at its smallest.

    python -m dlf.benchmarks.quality BUNDLE --out FOLDER

Written into FOLDER: `quality.json`, every figure of every image; `contact_sheet.png`, each original beside what the codecs make
of it. `dlf-bench` measures more; this is the record that goes with a trained model.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dlf import Codec, Limits
from dlf.benchmarks import datasets, metrics, rivals
from dlf.runtime.images import load

Pixels = NDArray[np.uint8]
# Original to the bytes of its file and what they decode to.
Trip = Callable[[Pixels], tuple[int, Pixels]]

SHEET_HEIGHT, CAPTION = 256, 16  # pixels


def dlf_trip(codec: Codec) -> Trip:
    """Through a `.dlf` file in memory."""

    def trip(pixels: Pixels) -> tuple[int, Pixels]:
        data = codec.encode(pixels)
        return len(data), codec.decode(data)

    return trip


def avif_trip(pixels: Pixels) -> tuple[int, Pixels]:
    """Through the smallest AVIF file."""
    data = rivals.encode("avif", pixels, 0).data
    return len(data), rivals.decode(data)


@dataclass(frozen=True)
class Row:
    """One image through one codec."""

    image: str
    codec: str
    bpp: float
    values: dict[str, float]


def measure(images: Mapping[str, Pixels], codecs: Mapping[str, Trip]) -> tuple[list[Row], Image.Image]:
    """Every image through every codec: the figures, and the contact sheet."""
    compare, rows, strips = metrics.Metrics(), [], []
    for name, pixels in track(images.items(), "Measuring"):
        cells = [(name, pixels)]
        for codec, trip in codecs.items():
            size, decoded = trip(pixels)
            row = Row(name, codec, 8 * size / (pixels.shape[0] * pixels.shape[1]), compare(pixels, decoded))
            rows.append(row)
            lpips, dists = row.values["LPIPS-Alex"], row.values["DISTS"]
            cells.append((f"{codec}: {size} bytes, LPIPS {lpips:.3f}, DISTS {dists:.3f}", decoded))
        strips.append(_strip(cells))
    sheet = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)))
    for i, strip in enumerate(strips):
        sheet.paste(strip, (0, i * strip.height))
    return rows, sheet


def _strip(cells: list[tuple[str, Pixels]]) -> Image.Image:
    width = round(SHEET_HEIGHT * 1.5)
    strip = Image.new("RGB", (width * len(cells), SHEET_HEIGHT + CAPTION))
    for i, (caption, pixels) in enumerate(cells):
        picture = Image.fromarray(pixels)
        picture.thumbnail((width, SHEET_HEIGHT))
        strip.paste(picture, (i * width, CAPTION))
        ImageDraw.Draw(strip).text((i * width + 4, 2), caption)
    return strip


def means(rows: list[Row]) -> dict[str, dict[str, float]]:
    """The mean of each figure for each codec."""
    out: dict[str, dict[str, float]] = {}
    for codec in dict.fromkeys(row.codec for row in rows):
        of_codec = [{"bpp": row.bpp, **row.values} for row in rows if row.codec == codec]
        out[codec] = {key: float(np.mean([values[key] for values in of_codec])) for key in of_codec[0]}
    return out


def report(rows: list[Row], sheet: Image.Image, out: Path) -> None:
    """Print the means and write all of it."""
    table = Table("codec", "bpp", *metrics.NAMES)
    for codec, values in means(rows).items():
        table.add_row(codec, *(f"{values[key]:.4f}" for key in ("bpp", *metrics.NAMES)))
    Console().print(table)
    out.mkdir(parents=True, exist_ok=True)
    content = {"means": means(rows), "images": [vars(row) for row in rows]}
    (out / "quality.json").write_text(json.dumps(content, indent=1))
    sheet.save(out / "contact_sheet.png")


def main(
    bundle: Annotated[Path, typer.Argument(help="bundle to measure")],
    out: Annotated[Path, typer.Option(help="folder to write into")],
    dataset: Annotated[str, typer.Option(help="kodak in the folder DLF_DATA, or a folder of photographs")] = "kodak",
    limit: Annotated[int | None, typer.Option(help="images, at most")] = None,
) -> None:
    """Measure a bundle and AVIF on the same photographs."""
    images = {path.stem: load(path, Limits()) for path in datasets.find(dataset)[:limit]}
    report(*measure(images, {"DLF": dlf_trip(Codec(bundle)), "AVIF": avif_trip}), out)


if __name__ == "__main__":
    typer.run(main)
