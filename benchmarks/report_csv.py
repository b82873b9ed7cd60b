"""The report as CSV: a row for every model, image and codec."""

import csv
from io import StringIO
from pathlib import Path

from dlf.benchmarks.records import OURS, Coding, ImageResult, ModelResult, Report
from dlf.runtime.files import write_atomically

PARTS = ("header", "tokens", "detail", "checksum")


def write(report: Report, path: Path) -> None:
    """Write the rows."""
    names = ("model", "image", "width", "height", "codec", "setting", "at_minimum", "bytes", "bpp", *report.metrics)
    text = StringIO()
    writer = csv.DictWriter(text, [*names, *PARTS, "padding_waste"], lineterminator="\n")
    writer.writeheader()
    for model in report.models:
        for image in model.images:
            for coding in image.codings:
                writer.writerow(_row(model, image, coding))
    write_atomically(path, text.getvalue().encode(errors="surrogateescape"))  # names of files may be no text


def _row(model: ModelResult, image: ImageResult, coding: Coding) -> dict[str, object]:
    row: dict[str, object] = {
        "model": model.model,
        "image": image.image,
        "width": image.width,
        "height": image.height,
        "codec": coding.codec,
        "setting": coding.setting,
        "at_minimum": int(coding.at_minimum),
        "bytes": coding.bytes,
        "bpp": coding.bpp,
        **coding.quality,
    }
    if coding.codec == OURS:
        row |= {**image.parts, "padding_waste": image.padding_waste}
    return row
