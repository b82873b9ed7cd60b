"""Compute lower bounds of the neural stages' time, on named GPUs and on this CPU. They are bounds, not measurements.

    python -m dlf.benchmarks.roofline bundle --size 768x512 --plot roofline.svg

A stage takes at least as long as its arithmetic does at the device's peak rate, and at least as long as reading its weights and
its inputs and writing its outputs once does at its full bandwidth (the roofline model of Williams, Waterman and Patterson, CACM
2009). FLOPs and bytes are counted in the bundle's graphs (`dlf.benchmarks.graph_cost`), the GPUs' rates are those
their maker publishes (`gpus.json`), and this CPU's are measured in the run. Convolutions are counted as direct ones: Winograd's
algorithm, which some kernels use in fp32, multiplies less and may be faster than this bound.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from dlf.benchmarks import graph_cost, machine, peak
from dlf.benchmarks.graph_cost import Cost
from dlf.runtime.bundles import builtin
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import DLFError
from dlf.runtime.formats import DECODER_STAGES, ENCODER_STAGES, TILE

WIDTHS = {"fp32": 4, "tf32": 4, "fp16": 2, "int8": 1}  # bytes of a number in each precision
DIRECTIONS = {"encode": ENCODER_STAGES, "decode": DECODER_STAGES}
CAPTION = "Floors, not measurements. Only the neural stages; encoding is the analysis."

stderr = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Device:
    """The peak rates of a device.

    Attributes:
        name: of the device.
        rates: precision -> operations a second.
        bandwidth: bytes a second from its memory.
        source: of the figures.
    """

    name: str
    rates: dict[str, float]
    bandwidth: float
    source: str


@dataclass(frozen=True)
class Floor:
    """The least time of a stage, or of a direction's stages one after the other; seconds."""

    device: str
    precision: str
    stage: str
    seconds: float
    bound: str  # "compute" or "memory": which of the two takes longer, for a direction in most of its time


def gpus() -> list[Device]:
    """Return the GPUs of gpus.json."""
    stored = json.loads((files("dlf.benchmarks") / "gpus.json").read_text())
    return [
        Device(
            gpu["name"],
            {precision: tera * 1e12 for precision, tera in gpu["tera_ops"].items()},
            gpu["gigabytes_per_second"] * 1e9,
            gpu["source"],
        )
        for gpu in stored["gpus"]
    ]


def this_cpu(threads: int) -> Device:
    """Measure this machine."""
    source = f"measured in this run: {machine.describe()['processor']}, {threads} thread{'s' * (threads != 1)}"
    rates = {precision: peak.gemm_rate(precision, threads) for precision in ("fp32", "int8")}
    return Device("this CPU", rates, peak.read_bandwidth(threads), source)


def count_stages(bundle: Bundle, width: int, height: int) -> dict[str, Cost]:
    """Return the cost of each stage for one image of `width` by `height` pixels, padded to whole tiles."""
    sizes = {"n": 1, "h": -(-height // TILE), "w": -(-width // TILE)}
    return {stage: graph_cost.count(bundle.stage(stage), sizes) for stages in DIRECTIONS.values() for stage in stages}


def floors(costs: Mapping[str, Cost], devices: Sequence[Device]) -> list[Floor]:
    """Return the floor of each stage and direction, on each device in each of its precisions."""
    found = []
    for device in devices:
        for precision, rate in device.rates.items():
            compute = {stage: cost.flops / rate for stage, cost in costs.items()}
            memory = {stage: cost.bytes(WIDTHS[precision]) / device.bandwidth for stage, cost in costs.items()}
            for name, stages in {**{stage: (stage,) for stage in costs}, **DIRECTIONS}.items():
                seconds = {stage: max(compute[stage], memory[stage]) for stage in stages}
                in_compute = sum(seconds[stage] for stage in stages if compute[stage] >= memory[stage])
                total = sum(seconds.values())
                found.append(Floor(device.name, precision, name, total, "compute" if 2 * in_compute >= total else "memory"))
    return found


def cost_table(costs: Mapping[str, Cost], title: str) -> Table:
    """Return a table of each stage's operations and bytes."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("stage")
    for column in ("GFLOP", "weights, M", "in and out, M", "FLOP/byte fp32", "fp16", "int8"):
        table.add_column(column, justify="right")
    for stage, cost in costs.items():
        intensities = (f"{cost.flops / cost.bytes(WIDTHS[precision]):.0f}" for precision in ("fp32", "fp16", "int8"))
        table.add_row(
            stage, f"{cost.flops / 1e9:.2f}", f"{cost.weights / 1e6:.2f}", f"{cost.activations / 1e6:.2f}", *intensities
        )
    return table


def floor_table(found: Sequence[Floor]) -> Table:
    """Return a table of the floors in milliseconds; an m marks those that memory bounds."""
    columns = [stage for stages in DIRECTIONS.values() for stage in stages] + ["decode"]
    table = Table(
        title="Floor, ms (m: bound by memory)", caption=CAPTION, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD
    )
    table.add_column("device", no_wrap=True)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    cells = {(floor.device, floor.precision, floor.stage): _milliseconds(floor) for floor in found}
    shown = ""
    for device, precision in dict.fromkeys((floor.device, floor.precision) for floor in found):
        name, shown = "" if device == shown else device, device
        table.add_row(name, precision, *(cells[device, precision, column] for column in columns))
    return table


def _milliseconds(floor: Floor) -> str:
    value = 1000 * floor.seconds
    return (f"{value:.0f}" if value >= 100 else f"{value:.3g}") + " m" * (floor.bound == "memory")


def plot(costs: Mapping[str, Cost], devices: Sequence[Device], path: Path, title: str) -> None:
    """Draw a roofline for each precision: the rate that each device can reach by FLOPs a byte, and the stages' positions."""
    from matplotlib.figure import Figure

    precisions = [precision for precision in WIDTHS if any(precision in device.rates for device in devices)]
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    colours = {device.name: f"C{i}" for i, device in enumerate(devices)}
    for axes, precision in zip(figure.subplots(2, 2, squeeze=False).flat, precisions, strict=False):
        having = [device for device in devices if precision in device.rates]
        places = {stage: cost.flops / cost.bytes(WIDTHS[precision]) for stage, cost in costs.items()}
        low, high = min(1.0, *places.values()) / 2, max(1e4, *places.values()) * 2
        for device in having:
            rate = device.rates[precision]
            ridge = rate / device.bandwidth
            line = [(x, min(rate, x * device.bandwidth)) for x in sorted({low, min(max(ridge, low), high), high})]
            axes.loglog(*zip(*line, strict=True), color=colours[device.name], label=device.name)
            reached = [min(rate, x * device.bandwidth) for x in places.values()]
            axes.loglog(list(places.values()), reached, "o", color=colours[device.name], markersize=4)
        for i, (stage, x) in enumerate(places.items()):
            axes.axvline(x, color="0.8", linewidth=0.8, zorder=0)
            axes.text(
                x, 0.02 + 0.2 * (i % 2), f" {stage}", rotation=90, fontsize=8, color="0.4", transform=axes.get_xaxis_transform()
            )
        axes.set(title=precision, xlabel="FLOP a byte", ylabel="FLOP a second at best")
    for axes in figure.axes[len(precisions) :]:
        axes.remove()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"{title}\nRooflines: bounds, not measurements")
    figure.savefig(path)


def main(
    bundle: Annotated[Path | None, typer.Argument(help="The bundle. By default the built-in model.", show_default=False)] = None,
    size: Annotated[str, typer.Option(metavar="WxH", help="Of the image, in pixels.")] = "768x512",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. By default as many as there are cores.")] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the rooflines: .svg, .png, .pdf.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print lower bounds of the time of a bundle's neural stages, on named GPUs and on this CPU."""
    sides = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", size)
    if sides is None:
        raise typer.BadParameter(f"{size!r} is not a size such as 768x512.", param_hint="--size")
    try:
        opened = Bundle(bundle or builtin.path())
        costs = count_stages(opened, int(sides[1]), int(sides[2]))
    except (DLFError, ValueError) as error:
        stderr.print(f"roofline: {error}")
        raise typer.Exit(1) from error
    devices = [*gpus(), this_cpu(threads or len(os.sched_getaffinity(0)))]
    found = floors(costs, devices)
    title = f"{opened.name} ({opened.fingerprint}), {size}"
    if as_json:
        print(json.dumps(_report(title, costs, devices, found), indent=1))
    else:
        console = Console()
        console.print(cost_table(costs, title))
        console.print(floor_table(found))
    if plot_file:
        plot(costs, devices, plot_file, title)


def _report(title: str, costs: Mapping[str, Cost], devices: Sequence[Device], found: Sequence[Floor]) -> dict[str, Any]:
    return {
        "title": title,
        "note": CAPTION,
        "stages": {stage: asdict(cost) for stage, cost in costs.items()},
        "devices": [asdict(device) for device in devices],
        "floors": [asdict(floor) for floor in found],
    }


if __name__ == "__main__":
    typer.run(main)
