"""Measure what a bundle's stages take of memory, and write it into its manifest, so that what would not fit is refused in time.

    python -m dlf.export.memory BUNDLE

Each backend that is installed encodes and decodes four pictures, two of them also with stages released once they have run, in
processes of their own, since the peak of a process cannot be lowered again. It is straight in the pixels, but for a step where
stages begin to be released (docs/format.md, section 4).
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeAlias

import numpy as np
import typer
from rich.console import Console

from dlf.export import manifest
from dlf.export.progress import UNSEEN, Progress, bar
from dlf.runtime.backends.choice import INSTALL
from dlf.runtime.backends.gpu_choice import GPU_ONLY
from dlf.runtime.codec import Codec
from dlf.runtime.errors import ExportError
from dlf.runtime.formats import DECODER_STAGES, ENCODER_STAGES, STAGES, TILE

# Heights and widths of the pictures; a peak at one tile is that of loading the model.
SMALL = (2 * TILE, 2 * TILE), (2 * TILE, 5 * TILE)
LARGE = (4 * TILE, 6 * TILE), (6 * TILE, 8 * TILE)
DIRECTIONS = {"encode": ENCODER_STAGES, "decode": DECODER_STAGES}

Size: TypeAlias = tuple[int, int]  # height, width


def record(bundle: Path, progress: Progress = UNSEEN) -> None:
    """Measure a bundle on the backends on the CPU that are installed, and replace `memory` in its manifest.

    `progress` is told of as much as `work` returns.

    Raises ExportError: a backend does not run the bundle.
    """
    content = manifest.read(bundle)
    content.pop("memory", None)
    manifest.write(bundle, content)  # so that no older measurement refuses the pictures
    memory = {}
    for backend in backends():
        memory[backend] = _measured(bundle, backend, progress)
    manifest.write(bundle, {**content, "memory": memory})


def work() -> int:
    """How many tiles stages compute to measure a bundle."""
    tiles = sum(_tiles(size) for size in (*SMALL, *SMALL, *LARGE))
    return len(backends()) * len(STAGES) * tiles


def backends() -> list[str]:
    """The backends on the CPU that are installed."""
    return [name for name in INSTALL if name not in GPU_ONLY and find_spec(name)]


def _tiles(size: Size) -> int:
    return size[0] * size[1] // TILE**2


def _measured(bundle: Path, backend: str, progress: Progress) -> dict[str, dict[str, Any]]:
    """The straight lines of each direction: small pictures with stages kept, and with stages released, and large ones."""
    with TemporaryDirectory() as folder:
        found: dict[str, dict[str, Any]] = {}
        for direction in DIRECTIONS:
            progress(f"memory that {backend} takes to {direction}")
            measure = partial(_line, bundle, backend, direction, Path(folder), progress)
            found[direction] = {**measure(SMALL), "released": measure(SMALL, low_memory=True), "large": measure(LARGE)}
        return found


def _line(
    bundle: Path,
    backend: str,
    direction: str,
    folder: Path,
    progress: Progress,
    sizes: Sequence[Size],
    *,
    low_memory: bool = False,
) -> dict[str, float]:
    peaks = []
    for size in sizes:
        file = folder / "{}x{}.dlf".format(*size)
        peaks.append(peak(bundle, backend, direction, size, file, low_memory=low_memory))
        progress.advance(len(DIRECTIONS[direction]) * _tiles(size))
    low, high = peaks
    (less, more) = (height * width for height, width in sizes)
    slope = max(1.0, (high - low) / (more - less))
    return {"bytes": max(0, round(low - slope * less)), "bytes_per_pixel": round(slope, 1)}


def peak(bundle: Path, backend: str, direction: str, size: Size, file: Path, *, low_memory: bool = False) -> int:
    """The peak, in bytes, of a process that encodes a made picture to a file, or decodes that file; with `low_memory` one that
    releases each stage once it has run.

    Raises ExportError: the backend does not run the bundle.
    """
    command = [sys.executable, "-m", __spec__.name, str(bundle), "--run", backend, direction, *map(str, size), str(file)]
    command += ["--low-memory"] if low_memory else []
    first_run = {**os.environ, "XDG_CACHE_HOME": os.devnull}  # in which stages are compiled, which takes more
    done = subprocess.run(command, env=first_run, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]  # below the traceback
        height, width = size
        raise ExportError(f"{bundle} cannot {direction} {width}x{height} pixels on {backend}: {reason}")
    return int(done.stdout)


def _run(bundle: Path, backend: str, direction: str, height: int, width: int, file: Path, *, low_memory: bool) -> int:
    """Encode a picture to a file, or decode the file; the peak of this process in bytes."""
    codec = Codec(bundle, backend, low_memory=low_memory)
    if direction == "encode":
        coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        file.write_bytes(codec.encode(coarse.repeat(8, 0).repeat(8, 1)))
    else:
        codec.decode(file.read_bytes())
    # Not getrusage's, in which the peak of the process that started this one counts.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that dlf-export has written.")],
    run: Annotated[tuple[str, str, int, int, Path] | None, typer.Option(hidden=True)] = None,
    low_memory: Annotated[bool, typer.Option("--low-memory", hidden=True)] = False,
) -> None:
    """Measure what a bundle takes of memory on each backend here, and write it into the manifest."""
    if run:
        print(_run(bundle, *run, low_memory=low_memory))
    else:
        with bar(Console(stderr=True)) as progress:
            progress.expect(work())
            record(bundle, progress)


if __name__ == "__main__":
    app(prog_name="python -m dlf.export.memory")
