"""Photographs as one memory-mapped array of bytes, and random crops of it.

JPEG files are decoded once; a crop then costs a small resize. The cache is a folder with `pixels.npy` (uint8, all images one
after the other) and `sizes.npy` (height and width of each).
"""

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dlf.runtime.errors import InvalidArgumentError
from dlf.runtime.formats import TILE

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
# A photograph is seen dozens of times; each crop of it is made another picture, lest it be learnt by heart (docs/model-card.md).
SCALES = (0.75, 1.6)  # source pixels of a crop per pixel of it
STRETCH = 0.1  # of one side against the other, at most, as a logarithm
GAMMA, TINT = 0.25, 0.1  # of all channels and of each by itself, at most, as logarithms of an exponent


def build_cache(folders: Iterable[Path], cache: Path, longest_short_side: int) -> int:
    """Decode every image below the folders, with a shorter side of at most `longest_short_side`; returns their number."""
    files = sorted(f for folder in folders for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
    if not files:
        raise InvalidArgumentError(
            f"There is no image ({', '.join(sorted(SUFFIXES))}) in the folders {', '.join(map(str, folders))}; name others."
        )
    cache.mkdir(parents=True, exist_ok=True)
    images = [_decode(f, longest_short_side) for f in files]
    for name, array in (
        ("pixels.npy", np.concatenate([i.reshape(-1) for i in images])),
        ("sizes.npy", np.array([i.shape[:2] for i in images], np.int64)),
    ):
        np.save(cache / f"part-{name}", array)
        os.replace(cache / f"part-{name}", cache / name)
    return len(images)


def pack_crops(photographs: "Photographs", folder: Path, size: int, side: int = 384) -> int:
    """Write squares of the photographs as WebP files of at most `size` bytes together; returns their number.

    Each photograph gives one square before any gives a second; `cache` reads the folder as any other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    count, total = 0, 0
    while True:
        for i, (height, width) in enumerate(photographs.sizes.tolist()):
            down, across = min(side, height), min(side, width)
            top, left = int(rng.integers(height - down + 1)), int(rng.integers(width - across + 1))
            crop = Image.fromarray(photographs.image(i)[top : top + down, left : left + across])
            buffer = io.BytesIO()
            crop.save(buffer, "webp", quality=88)
            total += len(buffer.getvalue())
            if total > size:
                return count
            (folder / f"{count:05}.webp").write_bytes(buffer.getvalue())
            count += 1


def _decode(file: Path, longest_short_side: int) -> NDArray[np.uint8]:
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    factor = longest_short_side / min(image.size)
    if factor < 1:
        image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)
    return np.asarray(image)


@dataclass(frozen=True)
class Photographs:
    """A cache of `build_cache`. Every `held_out`-th image is kept from training and used to judge it."""

    pixels: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    held_out: int

    @staticmethod
    def open(cache: Path, held_out: int = 46) -> "Photographs":
        """Memory-map a cache folder. Raises InvalidArgumentError where there is none."""
        if not (cache / "pixels.npy").is_file():
            raise InvalidArgumentError(
                f"{cache} is no cache of photographs; make one with `train cache PHOTOGRAPHS --cache {cache}`."
            )
        return Photographs(np.load(cache / "pixels.npy", mmap_mode="r"), np.load(cache / "sizes.npy"), held_out)

    def image(self, i: int) -> NDArray[np.uint8]:
        """Image i, (height, width, 3)."""
        start = 3 * int(self.sizes[:i].prod(1).sum())
        height, width = map(int, self.sizes[i])
        return self.pixels[start : start + 3 * height * width].reshape(height, width, 3)

    def crops(self, rng: np.random.Generator, n: int, down: int, across: int) -> Tensor:
        """Random crops of `down` x `across` tiles from images that are large enough, drawn by area; scaled, stretched, mirrored
        and tinted at random.

        Returns (n, 3, 256 * down, 256 * across), -1 to 1.
        """
        need = SCALES[0] * TILE * np.array([down, across])
        chosen = (self.sizes >= need).all(1) & (np.arange(len(self.sizes)) % self.held_out != 0)
        area = self.sizes.prod(1) * chosen
        picks = rng.choice(len(self.sizes), n, p=area / area.sum())
        return to_tensor([self._crop(rng, int(i), down, across) for i in picks])

    def _crop(self, rng: np.random.Generator, i: int, down: int, across: int) -> NDArray[np.uint8]:
        image, size = self.image(i), TILE * np.array([down, across])
        scale = rng.uniform(SCALES[0], min(SCALES[1], (np.array(image.shape[:2]) / size).min()))
        stretched = size * scale * np.exp(rng.uniform(-STRETCH, STRETCH, 2))
        height, width = map(int, np.minimum(stretched, image.shape[:2]))
        top, left = rng.integers(image.shape[0] - height + 1), rng.integers(image.shape[1] - width + 1)
        crop = Image.fromarray(image[top : top + height, left : left + width])
        pixels = np.asarray(crop.resize((int(size[1]), int(size[0])), Image.Resampling.BICUBIC))
        return tint(rng, pixels[:, ::-1] if rng.random() < 0.5 else pixels)

    def judged(self, down: int = 1, across: int = 1) -> Tensor:
        """The centres of the held-out images, (n, 3, 256 * down, 256 * across), -1 to 1."""
        height, width = TILE * down, TILE * across
        out = []
        for i in range(0, len(self.sizes), self.held_out):
            image = self.image(i)
            top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
            if top >= 0 and left >= 0:
                out.append(image[top : top + height, left : left + width])
        return to_tensor(out)


def tint(rng: np.random.Generator, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels (height, width, 3) lighter or darker, and of another tint: each channel to a random power of its own near 1."""
    powers = np.exp(rng.uniform(-GAMMA, GAMMA) + rng.uniform(-TINT, TINT, (3, 1)))
    tables = np.rint(255 * np.linspace(0, 1, 256) ** powers).astype(np.uint8)
    return np.stack([table[pixels[..., c]] for c, table in enumerate(tables)], axis=2)


def to_tensor(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Images (height, width, 3) of one size as (n, 3, height, width), -1 to 1."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
