"""How fast a bundle is, beside peers with the same weights: cold and warm, file to file, copies included.

Every measurement is a process of its own (`speed_worker`), so that a cold start is cold, peak memory is its own, and no
library slows another. Cold is a new process; the operating system may still hold the files in its cache.
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

from dlf.benchmarks.records import Speed, Throughput, Timing
from dlf.benchmarks.speed_worker import TORCH, BatchJob, Job
from dlf.runtime.errors import BackendFailedError
from dlf.runtime.images import load

DIRECTIONS = ("encode", "decode")  # in this order: decoding reads what encoding wrote


def measure(
    image: Path,
    model: Path,
    peers: Sequence[str],
    *,
    checkpoint: Path | None,
    threads: int | None,
    repeats: int,
    batches: Sequence[int] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Speed:
    """Time every peer ("torch", which needs the checkpoint, or a backend) in both directions, and the first one in batches.

    Raises:
        BackendFailedError: a process ended with an error; its last line is in the message.
    """
    timings = []
    with TemporaryDirectory(prefix="dlf-bench-") as folder:
        for peer in peers:
            for direction in DIRECTIONS:
                tell(f"{peer}: {direction}")
                source = checkpoint if peer == TORCH else model
                job = Job(peer, direction, str(image), str(source), threads, repeats, folder)
                timings.append(Timing(peer, direction, **_in_a_process(f"{peer} {direction}", asdict(job))))
        throughput = []
        for batch in batches:
            tell(f"{peers[0]}: batches of {batch}")
            found = _in_a_process(
                f"{peers[0]} in batches", asdict(BatchJob(peers[0], str(image), str(model), threads, repeats, batch))
            )
            throughput.append(Throughput(batch, **found))
    height, width, _ = load(image).shape
    return Speed(image.name, width, height, threads, timings, throughput)


def _in_a_process(what: str, job: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "dlf.benchmarks.speed_worker", str(monotonic()), json.dumps(job)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendFailedError(f"Measuring {what} ended with status {run.returncode} ({last}).")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found
