"""Measure the rate of a model, and write it into its bundle's manifest: by it the models of a folder are ordered.

    python -m dlf.export.rate BUNDLE --photographs FOLDER

Rates that are to be compared are measured on the same photographs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dlf.export import manifest
from dlf.export.parity import load_photographs
from dlf.runtime.codec import Codec
from dlf.runtime.images import Pixels


def record(bundle: Path, photographs: Sequence[Pixels], threads: int | None = None) -> float:
    """Encode photographs, (H, W, 3) uint8 each, on ONNX Runtime; write the bits per pixel of all files together, and return them.

    Raises DLFError: the bundle does not encode them.
    """
    with Codec(bundle, "onnxruntime", threads, low_memory=True) as codec:
        size = sum(len(file) for file in codec.encode_many(photographs, batch=1))
    rate = round(8 * size / sum(height * width for height, width, _ in (each.shape for each in photographs)), 5)
    content = manifest.read(bundle)
    content["model"]["bits_per_pixel"] = rate
    manifest.write(bundle, content)
    return rate


def is_known(bundle: Path) -> bool:
    """Whether the manifest tells the model's rate."""
    return "bits_per_pixel" in manifest.read(bundle)["model"]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that dlf-export has written.")],
    photographs: Annotated[Path | None, typer.Option(metavar="FOLDER", help="By default scikit-learn's.")] = None,
) -> None:
    """Measure the bits per pixel of a model's files, and write them into the manifest."""
    print(f"{bundle}: {record(bundle, load_photographs(photographs))} bits per pixel")


if __name__ == "__main__":
    app(prog_name="python -m dlf.export.rate")
