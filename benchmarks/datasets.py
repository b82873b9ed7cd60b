"""The images to measure on: the Kodak set, checked against pinned sums; CLIC2020; or any folder.

A set of a known name is in the folder `$DLF_DATA/NAME` (by default in the user's cache folder). Kodak can be fetched there.
"""

import os
from collections.abc import Sequence
from hashlib import sha256
from http.client import HTTPException
from importlib.resources import files
from pathlib import Path
from urllib.request import urlopen

from dlf.runtime.errors import InvalidArgumentError
from dlf.runtime.files import cache_folder, write_atomically

KODAK_HOME = "https://r0k.us/graphics/kodak/kodak/"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm"}


def find(name: str, download: bool = False) -> list[Path]:
    """Return the image files of a data set, sorted: `kodak`, `clic2020`, or the path of a folder or of one image.

    Raises:
        InvalidArgumentError: it is not there (the message says what to put where), or differs from the published one.
    """
    if name == "kodak":
        return kodak(folder_of(name), download)
    if download:
        raise InvalidArgumentError(f"Only kodak can be downloaded, not {name}; give the folder's path with --dataset.")
    path = folder_of(name) if name == "clic2020" else Path(name)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InvalidArgumentError(_where_clic(path) if name == "clic2020" else f"{name}: no such folder, nor a data set's name.")
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        raise InvalidArgumentError(f"{path} holds no image ({', '.join(sorted(SUFFIXES))}).")
    return found


def folder_of(name: str) -> Path:
    """Return the folder of a data set of a known name."""
    return Path(os.environ.get("DLF_DATA") or cache_folder() / "data") / name


def kodak(folder: Path, download: bool = False, home: str = KODAK_HOME) -> list[Path]:
    """Check and return the 24 images of the Kodak set in `folder`; with `download`, fetch those that are missing.

    Each image is checked before it is written, whole or not at all, so an interrupted download can be continued.

    Raises:
        InvalidArgumentError: images are missing or cannot be fetched, or one is not the published file.
    """
    sums = kodak_sums()
    missing = [name for name in sums if not (folder / name).is_file()]
    if missing and not download:
        raise InvalidArgumentError(
            f"{len(missing)} of the {len(sums)} Kodak images are not in {folder}. {_by_hand(folder, missing, home)} "
            "Or let --download fetch them."
        )
    for i, name in enumerate(missing):
        try:
            with urlopen(home + name, timeout=60) as response:
                data = response.read()
        except (OSError, HTTPException) as error:
            raise InvalidArgumentError(
                f"{home}{name} cannot be fetched ({error}). {_by_hand(folder, missing[i:], home)}"
            ) from error
        _check(name, data, sums[name], home)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, data)
    for name, expected in sums.items():
        _check(name, (folder / name).read_bytes(), expected, str(folder))
    return [folder / name for name in sums]


def kodak_sums() -> dict[str, str]:
    """File name -> SHA-256 of the published Kodak images, in their order."""
    lines = (files("dlf.benchmarks") / "kodak.sha256").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def _by_hand(folder: Path, missing: Sequence[str], home: str) -> str:
    return f"Put {', '.join(missing)} from {home} into {folder}, or set DLF_DATA to a folder that holds kodak/."


def _check(name: str, data: bytes, expected: str, source: str) -> None:
    if (digest := sha256(data).hexdigest()) != expected:
        raise InvalidArgumentError(
            f"{name} from {source} is not the published Kodak image (SHA-256 {digest[:16]}..., not {expected[:16]}...); "
            "results on it would not compare. Replace it, or give the folder by its path to measure it unchanged."
        )


def _where_clic(path: Path) -> str:
    return (
        f"{path} is not there. Unpack the 428 images of the CLIC2020 test set (professional and mobile, from "
        "https://clic.compression.cc/2020/) into it, or give their folder by path: --dataset FOLDER."
    )
