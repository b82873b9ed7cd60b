"""All images of a report in one picture: one row for each image, the original first, then the codecs' pictures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dlf.benchmarks.measure import Pictures
from dlf.benchmarks.pictures import from_data_uri
from dlf.benchmarks.records import Coding, Report
from dlf.runtime.images import save

CELL = (384, 256)  # pixels; larger pictures are scaled down
CAPTION = 16  # pixels of a line of text above each
TOLD = ("LPIPS-Alex", "DISTS")  # the metrics that are shown; without any of them the first two


def write(report: Report, pictures: Mapping[str, Mapping[str, Pictures]], path: Path) -> None:
    """Write the sheet in the format of the path's suffix; `pictures` are data URIs by model, image and codec, from `run`.

    Raises:
        ImageError: Pillow writes no such format, or not at this size.
    """
    rows: dict[str, list[Image.Image]] = {}
    for model in report.models:
        for image in model.images:
            shown = pictures[model.model].get(image.image)
            if not shown:
                continue
            row = rows.setdefault(image.image, [_cell(shown["original"], f"{image.image}, {image.width}x{image.height}")])
            for coding in image.codings:
                row.append(_cell(shown[coding.codec], _caption(report, coding)))
    width, height = CELL[0], CELL[1] + CAPTION
    sheet = Image.new("RGB", (width * max(map(len, rows.values()), default=1), height * max(len(rows), 1)))
    for i, row in enumerate(rows.values()):
        for j, cell in enumerate(row):
            sheet.paste(cell, (j * width, i * height))
    save(np.asarray(sheet), path)


def _caption(report: Report, coding: Coding) -> str:
    told = [metric for metric in report.metrics if metric in TOLD] or report.metrics[:2]
    return ", ".join([f"{coding.codec}: {coding.bytes} bytes", *(f"{metric} {coding.quality[metric]:.3f}" for metric in told)])


def _cell(uri: str, caption: str) -> Image.Image:
    cell = Image.new("RGB", (CELL[0], CELL[1] + CAPTION))
    picture = from_data_uri(uri)
    picture.thumbnail(CELL)
    cell.paste(picture, (0, CAPTION))
    ImageDraw.Draw(cell).text((4, 2), caption)
    return cell
