"""Time a bundle and peers with the same weights: cold and warm, singly and in batches, copies included.

Each measurement runs in its own process (`speed_worker`), so that a cold start is cold, the peak of memory belongs to it, and
no library slows another. Cold means a new process; the operating system may still have the files in its cache.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from PIL import Image

from dlf.benchmarks import rivals
from dlf.benchmarks.records import DIRECTIONS, Speed, Timing
from dlf.benchmarks.rivals import Pixels
from dlf.benchmarks.rivals.command import CommandRival
from dlf.benchmarks.speed_worker import TORCH, Job
from dlf.runtime.errors import BackendFailedError
from dlf.runtime.images import load


def measure(
    image: Path,
    model: Path,
    peers: Sequence[str],
    *,
    commands: Sequence[CommandRival] = (),
    checkpoint: Path | None,
    threads: int | None,
    repeats: int,
    batches: Sequence[int] = (),
    device: str = "cpu",
    tell: Callable[[str], None] = lambda _: None,
) -> Speed:
    """Time every peer ("torch", which needs the checkpoint, or a backend) in both directions: one image, then batches of it.

    Commands run at the quality whose file is nearest in bytes to the first peer's, one image at a time. The other peers run on
    `device`: "cpu", "cuda" or "cuda:N".

    Raises:
        BackendFailedError: a process ended with an error; its last line is in the message.
    """
    timings = []
    with TemporaryDirectory(prefix="dlf-bench-") as folder:
        for batch in dict.fromkeys((1, *batches)):
            for peer in peers:
                source = checkpoint if peer == TORCH else model
                for direction in DIRECTIONS:  # in this order: decoding reads what encoding wrote
                    tell(f"{peer}: {direction}{f' {batch} at once' if batch > 1 else ''}")
                    job = Job(peer, direction, batch, str(image), str(source), threads, repeats, folder, device)
                    timings.append(Timing(peer, direction, batch, **in_a_process(job)))
        pixels = load(image)
        size = Path(folder, f"{peers[0]}-0.dlf").stat().st_size
        for command in commands:
            tell(command.name)
            timings += _of_command(command, pixels, size, repeats, Path(folder))
    height, width, _ = pixels.shape
    return Speed(image.name, width, height, threads, timings)


def _of_command(rival: CommandRival, pixels: Pixels, size: int, repeats: int, folder: Path) -> list[Timing]:
    """Time a command in both directions; a process for each repeat."""
    quality = rivals.encode(rival, pixels, size).quality
    image, file, decoded = folder / "rival.png", folder / f"rival{rival.suffix}", folder / "decoded.png"
    Image.fromarray(pixels).save(image)
    timings = []
    for direction, picture in zip(DIRECTIONS, (image, decoded), strict=True):
        seconds = [rival.run(direction, picture, file, quality) for _ in range(1 + repeats)]
        timings.append(Timing(rival.name, direction, 1, seconds[0], seconds[1:], {}, None, {}, process_each=True))
    return timings


def in_a_process(job: Job) -> dict[str, Any]:
    """Run a job in its own process, and return its figures by the fields of `Timing`.

    Raises:
        BackendFailedError: it ended with an error; its last line is in the message.
    """
    command = [sys.executable, "-m", "dlf.benchmarks.speed_worker", str(monotonic()), json.dumps(asdict(job))]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendFailedError(f"Measuring {job.peer} {job.direction} ended with status {run.returncode} ({last}).")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found
