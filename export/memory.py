"""Measure what a bundle's stages take of memory, and write it into its manifest, so that what would not fit is refused in time.

    python -m dlf.export.memory BUNDLE

Each backend that is installed encodes and decodes two pictures, each in a process of its own: the peak of a process cannot be
lowered again, and is straight in the pixels (docs/format.md, section 4).
"""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from dlf.runtime.backends.choice import INSTALL
from dlf.runtime.backends.gpu_choice import GPU_ONLY
from dlf.runtime.codec import Codec
from dlf.runtime.errors import ExportError
from dlf.runtime.files import write_atomically
from dlf.runtime.formats import TILE

SIDES = 2 * TILE, 4 * TILE  # of the pictures; a peak at one tile is that of loading the model
DIRECTIONS = ("encode", "decode")


def record(bundle: Path, progress: Callable[[str], None] = lambda _: None) -> None:
    """Measure a bundle on the backends on the CPU that are installed, and replace `memory` in its manifest.

    Raises ExportError: a backend does not run the bundle.
    """
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.pop("memory", None)
    write_atomically(path, _text(manifest))  # so that no older measurement refuses the pictures
    memory = {}
    for backend in (name for name in INSTALL if name not in GPU_ONLY and find_spec(name)):
        progress(f"memory on {backend}")
        memory[backend] = _measured(bundle, backend)
    write_atomically(path, _text({**manifest, "memory": memory}))


def _text(manifest: object) -> bytes:
    return (json.dumps(manifest, indent=1) + "\n").encode()


def _measured(bundle: Path, backend: str) -> dict[str, dict[str, float]]:
    """The straight line through the peaks at both sizes, of each direction."""
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{side}.dlf" for side in SIDES]
        small, large = SIDES[0] ** 2, SIDES[1] ** 2
        found = {}
        for direction in DIRECTIONS:
            low, high = (_peak(bundle, backend, direction, side, file) for side, file in zip(SIDES, files, strict=True))
            slope = max(1.0, (high - low) / (large - small))
            found[direction] = {"bytes": max(0, round(low - slope * small)), "bytes_per_pixel": round(slope, 1)}
    return found


def _peak(bundle: Path, backend: str, direction: str, side: int, file: Path) -> int:
    command = [sys.executable, "-m", __spec__.name, str(bundle), "--run", backend, direction, str(side), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]  # below the traceback
        raise ExportError(f"{bundle} cannot {direction} {side}x{side} pixels on {backend}: {reason}")
    return int(done.stdout)


def _run(bundle: Path, backend: str, direction: str, side: int, file: Path) -> int:
    """Encode a picture to a file, or decode the file; the peak of this process in bytes."""
    codec = Codec(bundle, backend)
    if direction == "encode":
        coarse = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
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
    run: Annotated[tuple[str, str, int, Path] | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure what a bundle takes of memory on each backend here, and write it into the manifest."""
    if run:
        print(_run(bundle, *run))
    else:
        record(bundle, print)


if __name__ == "__main__":
    app(prog_name="python -m dlf.export.memory")
