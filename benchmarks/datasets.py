"""The images to measure on: the Kodak set, checked against pinned sums; CLIC2020; or any folder.

A set of a known name lies in `$DLF_DATA/NAME` (by default in the user's cache folder). Kodak can be fetched there.
"""

import os
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from urllib.request import urlopen

from dlf.runtime.errors import InvalidArgumentError
from dlf.runtime.files import write_atomically

KODAK_HOME = "https://r0k.us/graphics/kodak/kodak/"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm"}


def find(name: str, download: bool = False) -> list[Path]:
    """The image files of a data set, sorted: `kodak`, `clic2020`, or the path of a folder or of one image.

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
    """Where a data set of a known name belongs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("DLF_DATA") or cache / "dlf" / "data") / name


def kodak(folder: Path, download: bool = False, home: str = KODAK_HOME) -> list[Path]:
    """The 24 images of the Kodak set in `folder`, checked; those that are missing are fetched if `download`.

    Raises:
        InvalidArgumentError: images are missing or cannot be fetched, or one is not the published file.
    """
    sums = kodak_sums()
    missing = [name for name in sums if not (folder / name).is_file()]
    if missing and not download:
        raise InvalidArgumentError(
            f"{len(missing)} of the {len(sums)} Kodak images are not in {folder} ({missing[0]}{' ...' if missing[1:] else ''}). "
            f"Put kodim01.png to kodim24.png there, from {KODAK_HOME}, or let --download fetch them; DLF_DATA may name "
            "another folder that holds kodak/."
        )
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
    for name in missing:
        _fetch(home + name, folder / name, lambda data, name=name: _check(name, data, sums[name], home))  # type: ignore[misc]
    for name, expected in sums.items():
        _check(name, (folder / name).read_bytes(), expected, str(folder))
    return [folder / name for name in sums]


def kodak_sums() -> dict[str, str]:
    """File name -> SHA-256 of the published Kodak images, in their order."""
    lines = (files("dlf.benchmarks") / "kodak.sha256").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def _fetch(url: str, target: Path, check: Callable[[bytes], None]) -> None:
    try:
        with urlopen(url, timeout=60) as response:
            data = response.read()
    except OSError as error:
        raise InvalidArgumentError(
            f"{url} cannot be fetched ({error}). Put {target.name} into {target.parent} by hand."
        ) from error
    check(data)
    write_atomically(target, data)


def _check(name: str, data: bytes, expected: str, source: str) -> None:
    if (digest := sha256(data).hexdigest()) != expected:
        raise InvalidArgumentError(
            f"{name} from {source} is not the published Kodak image (SHA-256 {digest[:16]}..., not {expected[:16]}...); "
            "results on it would not compare. Replace it, or give the folder by its path to measure it as it is."
        )


def _where_clic(path: Path) -> str:
    return (
        f"{path} is not there. Unpack the 428 images of the CLIC2020 test set (professional and mobile, from "
        "https://clic.compression.cc/2020/) into it, or give their folder by path: --dataset FOLDER."
    )
