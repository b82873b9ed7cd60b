"""Fetch the photographs among the wallpapers that Debian packages, and the samples of scikit-learn.

    python -m dlf.export.training.fetch_photographs FOLDER

Drawings and gradients are dropped by a measured criterion: brought to 512 pixels on the shorter side, a photograph has few
places where neighbouring pixels are equal to within one level (noise and texture see to that).
"""

import subprocess
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from dlf.export.training.data import SUFFIXES

PACKAGES = (
    "plasma-workspace-wallpapers",
    "mate-backgrounds",
    "gnome-backgrounds",
    "ukui-wallpapers",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
)
# Drawings that have texture enough to pass.
DRAWINGS = (
    "Elephants",
    "Stripes",
    "wood-",
    "SafeLanding",
    "licorice",
    "Gulp",
    "grid-",
    "analogpattern",
    "Ubuntu-Mate",
    "Autumn",
    "screenshot",
)
FLAT = 0.28  # of the pixels, at most
SHORT_SIDE = 1024  # of what is kept


def flat_share(image: Image.Image) -> float:
    """The share of pixels whose luma differs by less than one level from its right and lower neighbours, on average."""
    factor = 512 / min(image.size)
    small = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)
    luma = np.asarray(small, np.float32).mean(2)
    steps = np.abs(np.diff(luma, axis=1))[:-1] + np.abs(np.diff(luma, axis=0))[:, :-1]
    return float((steps < 1).mean())


def main(folder: Annotated[Path, typer.Argument(help="where the packages are unpacked, and photographs/ is made")]) -> None:
    """Download, unpack and sift."""
    unpacked, kept = folder / "unpacked", folder / "photographs"
    for path in (unpacked, kept):
        path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", "--quiet", *PACKAGES], cwd=folder, check=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, unpacked], check=True)
    count = 0
    for file in [*sorted(unpacked.rglob("*")), *_scikit_learn_samples()]:
        drawing = any(word in str(file) for word in DRAWINGS)
        if file.suffix.lower() not in SUFFIXES or file.is_symlink() or drawing:
            continue
        with Image.open(file) as opened:
            if min(opened.size) < 400:
                continue
            image = opened.convert("RGB")
        if flat_share(image) < FLAT:
            image.thumbnail((10 * SHORT_SIDE, SHORT_SIDE), Image.Resampling.LANCZOS)
            image.save(kept / f"{count:03}_{file.stem}.png")
            count += 1
    print(f"{count} photographs in {kept}")


def _scikit_learn_samples() -> list[Path]:
    import sklearn.datasets

    return sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))


if __name__ == "__main__":
    typer.run(main)
