"""One speed measurement, in the process that `speed` starts for it: `speed_worker STARTED JOB`, figures in JSON on stdout.

STARTED is when the process was started, by the system's monotonic clock; JOB is a `Job` in JSON.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

TORCH = "torch"
COMPILED = "torch.compile"


@dataclass(frozen=True)
class Job:
    """A peer in one direction, files to files: `batch` copies of one image at once.

    `folder` holds the coded files, that "encode" writes and "decode" reads.
    """

    peer: str
    direction: str
    batch: int
    image: str
    model: str  # the bundle, or torch's checkpoint
    threads: int | None
    repeats: int
    folder: str
    device: str = "cpu"  # "cpu", "cuda" or "cuda:N"
    low_memory: bool = False  # of the codec: a stage is loaded for each image, and then released

    def files(self, suffix: str) -> list[Path]:
        """The paths of the coded files, one for each image of the batch."""
        return [Path(self.folder, f"{self.peer}-{i}{suffix}") for i in range(self.batch)]


def run(job: Job, started: float) -> dict[str, Any]:
    """Time the first call in a new process, then the repeats; returns seconds by the fields of `Timing`."""
    codec, work, versions = _torch(job) if job.peer in (TORCH, COMPILED) else _dlf(job)
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


def _dlf(job: Job) -> tuple[Any, Callable[[], object], dict[str, str]]:
    import dlf
    from dlf.runtime.files import write_atomically
    from dlf.runtime.images import save

    codec = dlf.Codec(job.model, job.peer, job.threads, low_memory=job.low_memory, device=job.device)
    coded, pictures = job.files(".dlf"), job.files(".png")

    def encode() -> None:
        for file, data in zip(coded, codec.encode_many([job.image] * job.batch, job.batch), strict=True):
            write_atomically(file, data)

    def decode() -> None:
        for file, image in zip(pictures, codec.decode_many([file.read_bytes() for file in coded], job.batch), strict=True):
            save(image, file)

    return codec, encode if job.direction == "encode" else decode, dict(codec.backend.versions)


def _torch(job: Job) -> tuple[Any, Callable[[], object], dict[str, str]]:
    import torch

    from dlf.benchmarks.torch_codec import Coded, TorchCodec
    from dlf.runtime.images import save

    codec = TorchCodec(Path(job.model), job.threads, compiled=job.peer == COMPILED, device=job.device)
    coded, pictures = job.files(".pt"), job.files(".png")

    def encode() -> None:
        for file, one in zip(coded, codec.encode([Path(job.image)] * job.batch), strict=True):
            one.save(file)

    def decode() -> None:
        for file, image in zip(pictures, codec.decode([Coded.load(file) for file in coded]), strict=True):
            save(image, file)

    return codec, encode if job.direction == "encode" else decode, {"torch": str(torch.__version__)}


def _peak_bytes() -> int:
    """Return the peak of this process's resident memory in bytes. (getrusage would include the parent's peak before exec.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmHWM in /proc/self/status")


if __name__ == "__main__":
    print(json.dumps(run(Job(**json.loads(sys.argv[2])), float(sys.argv[1]))))
