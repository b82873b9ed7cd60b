"""What a bundle takes of memory at sizes that its manifest was not measured at, beside what the manifest lets expect.

    python -m dlf.benchmarks.memory [BUNDLE] --sizes 512,1024,2048 --json memory.json

Each figure is the peak of a process of its own, which encodes a made picture or decodes its file (`dlf.export.memory`).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from dlf.benchmarks import machine
from dlf.export.memory import DIRECTIONS, backends, peak
from dlf.runtime.bundles import builtin
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.files import write_atomically
from dlf.runtime.formats import LARGE_BATCH


@dataclass(frozen=True)
class Peak:
    """The bytes that a backend took in one direction for a square picture, and those that the manifest lets expect."""

    backend: str
    direction: str
    side: int  # pixels
    bytes: int
    expected: int


def expected(memory: dict[str, Any], backend: str, direction: str, pixels: int) -> int:
    """The bytes that a manifest's `memory` lets expect, as docs/format.md has it (section 4); the pixels are of whole tiles."""
    line = memory[backend][direction]
    line = line["large"] if pixels >= LARGE_BATCH else line
    return round(line["bytes"] + line["bytes_per_pixel"] * pixels)


def table(peaks: list[Peak], sides: list[int]) -> Table:
    """A row for each backend and direction, a column for each size: megabytes, and those expected."""
    shown = Table("MB (expected)", *(f"{side}x{side}" for side in sides), box=box.SIMPLE_HEAD)
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for found in peaks:
        row = rows.setdefault((found.backend, found.direction), {})
        row[found.side] = f"{found.bytes / 1e6:.0f} ({found.expected / 1e6:.0f})"
    for (backend, direction), row in rows.items():
        shown.add_row(f"{backend}, {direction}", *(row.get(side, "") for side in sides))
    return shown


def main(
    bundle: Annotated[Path | None, typer.Argument(help="The bundle. By default the built-in model.", show_default=False)] = None,
    sizes: Annotated[str, typer.Option(metavar="SIDES", help="Multiples of 256.")] = "512,768,1024,2048",
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Rewritten after each measurement.")] = None,
) -> None:
    """Measure the peak of memory of encoding and decoding square pictures."""
    opened, sides = Bundle(bundle or builtin.path()), [int(side) for side in sizes.split(",")]
    peaks: list[Peak] = []
    with TemporaryDirectory(prefix="dlf-bench-") as scratch:
        for side in sides:
            file = Path(scratch) / f"{side}.dlf"
            for backend in backends():
                for direction in DIRECTIONS:
                    taken = peak(opened.path, backend, direction, (side, side), file)
                    foreseen = expected(opened.manifest["memory"], backend, direction, side**2)
                    peaks.append(Peak(backend, direction, side, taken, foreseen))
                    report = {"machine": machine.describe(), "model": opened.name, "peaks": [asdict(each) for each in peaks]}
                    if json_file:
                        write_atomically(json_file, json.dumps(report, indent=1).encode())
    Console().print(table(peaks, sides))


if __name__ == "__main__":
    typer.run(main)
