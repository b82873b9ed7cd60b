"""Time bundles and PyTorch on this CPU, stage by stage, in one run, and compare with the CPU's fastest matrix products.

    python -m dlf.benchmarks.cpu kodim23.png --checkpoint model.ckpt --model bundle --model bundle-int8 --json cpu.json

Each direction of each peer is timed in a process of its own, from file to file, as dlf-bench does. Where the speed of the machine
varies, `--turns` times all peers several times, one after the other, and takes the medians of all runs. A stage's rate is the
arithmetic of its graph (`dlf.benchmarks.graph_cost`) over its seconds; its share is that rate over the rate of the
fastest matrix product in the same precision, measured in the same run. Peak memory is the process's: once with all stages kept
loaded, once with each released after use.
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from dlf.benchmarks import machine, peak
from dlf.benchmarks.records import DIRECTIONS
from dlf.benchmarks.roofline import count_stages
from dlf.benchmarks.speed import in_a_process
from dlf.benchmarks.speed_worker import COMPILED, TORCH, Job
from dlf.runtime.backends.choice import installed
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import DLFError
from dlf.runtime.files import write_atomically
from dlf.runtime.formats import DECODER_STAGES, ENCODER_STAGES
from dlf.runtime.images import load

BACKENDS = ("openvino", "onnxruntime")  # those on the CPU
STAGES = {"encode": ENCODER_STAGES, "decode": DECODER_STAGES}


@dataclass(frozen=True)
class Peer:
    """What is timed: PyTorch with a checkpoint, or a backend with a bundle."""

    name: str  # of `Job.peer`
    source: Path
    precision: str
    flops: dict[str, int] | None  # of each stage; not counted for PyTorch

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"


@dataclass(frozen=True)
class Result:
    """One peer in one direction; medians, in seconds and bytes."""

    peer: str
    precision: str
    direction: str
    seconds: float  # files to files
    repeats: list[float]
    stages: dict[str, float]
    rates: dict[str, float]  # of each stage, operations a second
    shares: dict[str, float]  # of the machine's rate
    peak_bytes: int
    peak_bytes_low_memory: int | None  # with each stage released after use
    versions: dict[str, str]  # of the libraries that computed it


def peers(models: list[Path], checkpoint: Path | None, compiled: bool, width: int, height: int) -> list[Peer]:
    """Return everything that is timed, PyTorch first."""
    found = [Peer(name, checkpoint, "fp32", None) for name in (TORCH, COMPILED)[: 1 + compiled] if checkpoint]
    for model in models:
        bundle = Bundle(model)
        flops = {stage: cost.flops for stage, cost in count_stages(bundle, width, height).items()}
        found += [Peer(backend, model, bundle.precision, flops) for backend in installed() if backend in BACKENDS]
    return found


@dataclass
class Runs:
    """What one peer's processes measured in one direction; `low_memory` is the peak of one that releases stages."""

    peer: Peer
    direction: str
    timings: list[dict[str, Any]] = field(default_factory=list)  # by the fields of `Timing`, a process each
    low_memory: int | None = None

    def result(self, gemm: dict[str, float]) -> Result:
        """The medians of all runs, and the stages' shares of the machine's rates."""
        peer = self.peer
        seconds = {
            stage: float(np.median([run for timing in self.timings for run in timing["steps"][stage]]))
            for stage in STAGES[self.direction]
        }
        rates = {stage: peer.flops[stage] / seconds[stage] for stage in seconds} if peer.flops else {}
        repeats = [run for timing in self.timings for run in timing["warm"]]
        return Result(
            peer=peer.name,
            precision=peer.precision,
            direction=self.direction,
            seconds=float(np.median(repeats)),
            repeats=repeats,
            stages=seconds,
            rates=rates,
            shares={stage: rate / gemm[peer.precision] for stage, rate in rates.items()},
            peak_bytes=max(timing["peak_bytes"] for timing in self.timings),
            peak_bytes_low_memory=self.low_memory,
            versions=self.timings[0]["versions"],
        )


def time(runs: Runs, image: Path, threads: int, repeats: int, folder: str) -> None:
    """Time one peer in one direction once more; decoding reads the files that encoding wrote to `folder`."""
    peer = runs.peer
    job = Job(peer.name, runs.direction, 1, str(image), str(peer.source), threads, repeats, folder)
    runs.timings.append(in_a_process(job))
    if peer.flops and runs.low_memory is None:
        runs.low_memory = in_a_process(Job(**{**asdict(job), "repeats": 0, "low_memory": True}))["peak_bytes"]


def table(results: list[Result]) -> Table:
    """Return a table of the results, each compared with PyTorch eager if that was timed."""
    shown = Table(box=box.SIMPLE_HEAD)
    for column in ("", "", "s", "x torch", "stages, s: GFLOP/s (share of GEMM)", "peak GB", "dropping stages"):
        shown.add_column(column, no_wrap=True)
    eager = {result.direction: result.seconds for result in results if result.peer == TORCH}
    for result in results:
        stages = [
            f"{stage} {seconds:.2f}" + (f": {result.rates[stage] / 1e9:.0f} ({result.shares[stage]:.0%})" if result.rates else "")
            for stage, seconds in result.stages.items()
        ]
        low = result.peak_bytes_low_memory
        shown.add_row(
            f"{result.peer} {result.precision}",
            result.direction,
            f"{result.seconds:.3f}",
            f"{eager[result.direction] / result.seconds:.2f}" if result.direction in eager else "",
            "\n".join(stages),
            f"{result.peak_bytes / 1e9:.2f}",
            f"{low / 1e9:.2f}" if low else "",
        )
    return shown


def main(
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The photograph to time on.")],
    model: Annotated[list[Path], typer.Option(metavar="BUNDLE", help="A bundle; may be repeated.")],
    checkpoint: Annotated[Path | None, typer.Option(help="What PyTorch runs; without it there is no comparison.")] = None,
    compiled: Annotated[bool, typer.Option("--compiled", help="Time torch.compile too.")] = False,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of a process, after one that is not.")] = 3,
    turns: Annotated[int, typer.Option(min=1, help="How often every peer is timed, in turns, in new processes.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Rewritten after each measurement.")] = None,
) -> None:
    """Time bundles and PyTorch on one photograph."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    gemm = {precision: peak.gemm_rate(precision, threads) for precision in ("fp32", "int8")}
    speeds = ", ".join(f"{precision} {rate / 1e9:.0f} G/s" for precision, rate in gemm.items())
    console.print(f"{machine.describe()['processor']}, {threads} threads; matrix products: {speeds}")
    height, width, _ = load(image).shape
    subject = {"image": image.name, "width": width, "height": height, "threads": threads, "turns": turns}
    timed = [[Runs(peer, direction) for direction in DIRECTIONS] for peer in peers(model, checkpoint, compiled, width, height)]
    results: list[Result] = []
    for directions in timed * turns:
        with TemporaryDirectory(prefix="dlf-bench-") as folder:
            for runs in directions:
                try:
                    time(runs, image, threads, repeats, folder)
                except DLFError as error:
                    console.print(f"{runs.peer} {runs.direction}: {error}")
                    break
                console.print(f"{runs.peer} {runs.direction}: {runs.timings[-1]['warm']} s")
                results = [each.result(gemm) for both in timed for each in both if each.timings]
                content = {"machine": machine.describe(), **subject, "gemm": gemm, "results": [asdict(each) for each in results]}
                if json_file:
                    write_atomically(json_file, json.dumps(content, indent=1).encode())
    console.print(table(results))


if __name__ == "__main__":
    typer.run(main)
