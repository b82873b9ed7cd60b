"""What the engine of `dlf corpus` costs and how it scales: `python -m dlf.benchmarks.corpus [--images N]`.

With a toy codec that sleeps for 50 ms an image: a plain loop against one worker, and 1, 4 and 16 workers; sleeping takes no
cores. With one that does nothing: the memory of the driver and of a worker over many images. Prints JSON.
"""

import json
import os
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from dlf.runtime.cluster import connected
from dlf.runtime.corpus import engine
from dlf.runtime.corpus.job import Job
from dlf.runtime.corpus.report import Report
from dlf.runtime.corpus.storage import Storage

SLEEP = 0.05  # seconds an image


class Sleeper:
    """What a worker uses of a codec; a file is the 400 bytes of nothing."""

    def __init__(self, seconds: float) -> None:
        self.bundle = SimpleNamespace(fingerprint="0000")
        self._seconds = seconds

    def encode_many(self, images: list[Any], batch: int = 1) -> list[bytes]:
        """Sleep for each image."""
        time.sleep(self._seconds * len(images))
        return [bytes(400) for _ in images]


def _make(folder: Path, count: int) -> None:
    """`count` pictures of 64x64, all the same, in folders of 1000."""
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
    for index in range(count):
        path = folder / f"{index // 1000:04}" / f"{index:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())


def _job(root: Path, source: str, target: str, seconds: float, shard: int) -> Job:
    open_codec: Any = partial(Sleeper, seconds)
    return Job("encode", Storage(str(root / source)), Storage(str(root / target)), open_codec, shard=shard)


def _plain(source: Path, target: Path) -> float:
    """Seconds of a loop over the files, which does what one has to: read, decode, code, write."""
    start, codec = time.perf_counter(), Sleeper(SLEEP)
    target.mkdir()
    for path in sorted(source.rglob("*.png")):
        pixels = np.asarray(Image.open(path))
        (target / f"{path.name}.dlf").write_bytes(codec.encode_many([pixels])[0])
    return time.perf_counter() - start


def _timed(job: Job, workers: int) -> float:
    """Seconds from the first chunk that is done to the last: without the start of the processes; for all images."""
    marks: list[tuple[float, int]] = []
    report = engine.run(job, workers, tell=lambda report: marks.append((time.perf_counter(), report.seen)))
    # When all workers have had their first chunk, they are all at work.
    first = next(mark for mark in marks if mark[1] >= workers * job.shard)
    return (marks[-1][0] - first[0]) * report.seen / (report.seen - first[1])


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _worker_memory() -> int:
    """Resident bytes of the worker."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::Worker"):
                return int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return 0


def main(images: Annotated[int, typer.Option(min=1000, help="Images of the run that watches the memory.")] = 20_000) -> None:
    """Measure the engine of dlf corpus."""
    results: dict[str, Any] = {"ray": version("ray"), "python": sys.version.split()[0], "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory() as name, connected("local", 16):
        root = Path(name)
        _make(root / "few", 400)
        plain = _plain(root / "few", root / "plain")
        one = _timed(_job(root, "few", "one", SLEEP, 16), 1)
        results["one worker"] = {"plain loop": plain, "engine": one, "overhead": one / plain - 1}
        _make(root / "some", 3200)
        rates = {1: 400 / one}
        for workers in (4, 16):
            rates[workers] = 3200 / _timed(_job(root, "some", f"of{workers}", SLEEP, 16), workers)
        results["images/s"] = rates
        results["of linear"] = {workers: rate / rates[1] / workers for workers, rate in rates.items()}
        _make(root / "many", images)
        memory: list[tuple[int, int, int]] = []

        def watch(report: Report) -> None:
            if report.seen >= (len(memory) + 1) * images // 10:
                memory.append((report.seen, _resident() >> 20, _worker_memory() >> 20))

        start = time.perf_counter()
        engine.run(_job(root, "many", "out", 0, 64), 1, tell=watch)
        results["memory"] = {"images/s": images / (time.perf_counter() - start), "images, MiB of driver, of worker": memory}
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    typer.run(main)
