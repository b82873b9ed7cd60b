"""One speed measurement, in the process that `speed` starts for it: `speed_worker STARTED JOB`, figures in JSON on stdout.

STARTED is when the process was started, by the system's monotonic clock; JOB is a `Job` or a `BatchJob` in JSON.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

TORCH = "torch"


@dataclass(frozen=True)
class Job:
    """A peer in one direction, file to file: `folder` holds the coded file, that "encode" writes and "decode" reads."""

    peer: str
    direction: str
    image: str
    model: str  # the bundle, or torch's checkpoint
    threads: int | None
    repeats: int
    folder: str


@dataclass(frozen=True)
class BatchJob:
    """The neural stages on `batch` copies of an image."""

    peer: str
    image: str
    model: str
    threads: int | None
    repeats: int
    batch: int


def run(job: Job, started: float) -> dict[str, Any]:
    """Time one call in a process that has done nothing yet, then the repeats; seconds, by the fields of `Timing`."""
    codec, work, versions = _torch(job) if job.peer == TORCH else _dlf(job)
    work()
    cold = monotonic() - started
    warm: list[float] = []
    steps: dict[str, list[float]] = {}
    for _ in range(job.repeats):
        start = perf_counter()
        work()
        warm.append(perf_counter() - start)
        timings = {step: seconds for step, seconds in codec.timings.items() if step != "load"}
        for step, seconds in {**timings, "files": warm[-1] - sum(timings.values())}.items():
            steps.setdefault(step, []).append(seconds)
    return {"cold": cold, "warm": warm, "steps": steps, "peak_bytes": _peak_bytes(), "versions": versions}


def run_batch(job: BatchJob) -> dict[str, float]:
    """Images a second through the stages of each direction, by the median of the repeats after one to warm up.

    The decoder's stages are given the encoder's latents unquantised: their time does not depend on the values.
    """
    import numpy as np

    import dlf
    from dlf.runtime.images import load, pad_to_tiles

    with dlf.Codec(job.model, job.peer, job.threads) as codec:
        stage = {name: codec.backend.load(codec.bundle.stage(name)) for name in ("analysis", "synthesis", "adaptor", "generator")}
    images = np.repeat(pad_to_tiles(load(job.image)), job.batch, axis=0)
    seconds: dict[str, list[float]] = {"encode": [], "decode": []}
    for _ in range(1 + job.repeats):
        start = perf_counter()
        latents = stage["analysis"]({"image": images})
        middle = perf_counter()
        maps = stage["synthesis"]({"z_hat": latents["z"], "y_hat": latents["y"]})
        stage["generator"](stage["adaptor"](maps))
        seconds["encode"].append(middle - start)
        seconds["decode"].append(perf_counter() - middle)
    return {direction: job.batch / float(np.median(times[1:])) for direction, times in seconds.items()}


def _dlf(job: Job) -> tuple[Any, Callable[[], object], dict[str, str]]:
    import dlf
    from dlf.runtime.files import write_atomically
    from dlf.runtime.images import save

    codec = dlf.Codec(job.model, job.peer, job.threads)
    coded, picture = Path(job.folder, f"{job.peer}.dlf"), Path(job.folder, "decoded.png")

    def encode() -> None:
        write_atomically(coded, codec.encode(job.image))

    def decode() -> None:
        save(codec.decode(coded.read_bytes()), picture)

    return codec, encode if job.direction == "encode" else decode, dict(codec.backend.versions)


def _torch(job: Job) -> tuple[Any, Callable[[], object], dict[str, str]]:
    import torch

    from dlf.benchmarks.torch_codec import Coded, TorchCodec
    from dlf.runtime.images import save

    codec = TorchCodec(Path(job.model), job.threads)
    coded, picture = Path(job.folder, "torch.pt"), Path(job.folder, "decoded.png")

    def encode() -> None:
        codec.encode(Path(job.image)).save(coded)

    def decode() -> None:
        save(codec.decode(Coded.load(coded)), picture)

    return codec, encode if job.direction == "encode" else decode, {"torch": str(torch.__version__)}


def _peak_bytes() -> int:
    """The peak of this process's resident memory. (getrusage counts the parent's too: exec hands its peak on.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmHWM in /proc/self/status")


if __name__ == "__main__":
    values = json.loads(sys.argv[2])
    print(json.dumps(run_batch(BatchJob(**values)) if "batch" in values else run(Job(**values), float(sys.argv[1]))))
