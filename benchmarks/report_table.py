"""The report as tables on a terminal."""

from statistics import mean

from rich.console import Console
from rich.table import Table

from dlf.benchmarks.records import OURS, ModelResult, Report, Speed, Timing


def show(report: Report, console: Console) -> None:
    """Print rate, quality, speed, BD-rates, the published figures and the gates."""
    for model in report.models:
        if model.images:
            console.print(_quality(report, model))
            console.print(_rate(model), highlight=False)
        if model.speed:
            console.print(_speed(model.speed))
            if model.speed.timings != model.speed.alone:
                console.print(_throughput(model.speed))
        for failure in model.failures:
            console.print(f"failed: {failure.image}: {failure.error}", markup=False, highlight=False)
    for rate in report.bd_rates:
        console.print(f"BD-rate by {rate.metric}, {rate.test} over {rate.anchor}: {rate}", highlight=False)
    console.print(_published(report))
    for gate in report.gates:
        verdict = "passed" if gate.passed else "FAILED"
        console.print(f"Gate --{gate.name} {gate.bound:g}: {gate.found:.4g}, {verdict}", highlight=False)


def _quality(report: Report, model: ModelResult) -> Table:
    images = f"{len(model.images)} image{'s' * (len(model.images) != 1)}"
    table = Table(title=f"{model.model} ({model.fingerprint}) on {report.dataset}, {images}: means", title_justify="left")
    table.add_column("codec")
    for column in ("bytes", "bpp", *report.metrics):
        table.add_column(column, justify="right")
    for codec in model.codecs():
        means = model.means(codec)
        cells = [f"{means[key]:.4f}" for key in ("bpp", *report.metrics)]
        table.add_row(f"{codec}*" if codec in model.at_minimum else codec, f"{means['bytes']:.0f}", *cells)
    if model.at_minimum:
        table.caption = "* cannot make a file as small as ours of some images: its smallest"
    return table


def _rate(model: ModelResult) -> str:
    parts = {part: mean(image.parts[part] for image in model.images) for part in model.images[0].parts}
    total = model.means(OURS)["bytes"]
    split = ", ".join(f"{part} {size:.1f} ({size / total:.0%})" for part, size in parts.items())
    waste = mean(image.padding_waste for image in model.images)
    return f"Bytes of a .dlf file: {split}; {waste:.1%} of the coded area is padding. {_where(model)}"


def _where(model: ModelResult) -> str:
    return f"{model.backend} {model.versions.get(model.backend, '')} on {model.device}, {model.precision}."


def _speed(speed: Speed) -> Table:
    threads = f"{speed.threads} threads" if speed.threads else "threads of each library's choice"
    title = f"Seconds from file to file: {speed.image}, {speed.width}x{speed.height}, {threads}"
    table = _peers(title, speed, "cold", "p50", "p95", "MP/s", "peak GB")
    for timing in speed.alone:
        rate = speed.megapixels_per_second(timing)
        cells = [f"{timing.cold:.2f}", f"{timing.p50:.3f}", f"{timing.p95:.3f}", f"{rate:.2f}", _gigabytes(timing)]
        table.add_row(timing.peer, timing.direction, *cells, *_ratio(speed, timing))
    if not speed.baselines:
        table.caption = "No peer was timed; --baseline gives one."
    return table


def _throughput(speed: Speed) -> Table:
    table = _peers("Throughput, files to files", speed, "at once", "images/s", "MP/s", "peak GB")
    for timing in speed.timings:
        rates = (timing.images_per_second, speed.megapixels_per_second(timing))
        cells = [str(timing.batch), *(f"{rate:.2f}" for rate in rates), _gigabytes(timing)]
        table.add_row(timing.peer, timing.direction, *cells, *_ratio(speed, timing))
    return table


def _peers(title: str, speed: Speed, *columns: str) -> Table:
    """Return a table with a row for each peer and direction; its last column is the first peer's speed over the row's."""
    table = Table(title=title, title_justify="left")
    table.add_column("peer")
    table.add_column("")
    for column in (*columns, *(f"{speed.peers[0]} is" for _ in speed.baselines[:1])):
        table.add_column(column, justify="right")
    return table


def _gigabytes(timing: Timing) -> str:
    return "" if timing.peak_bytes is None else f"{timing.peak_bytes / 1e9:.2f}"


def _ratio(speed: Speed, timing: Timing) -> list[str]:
    return [f"{speed.ratio(timing):.2f}x as fast"] if timing.peer in speed.baselines else []


def _published(report: Report) -> Table:
    table = Table(title="Published by others, not measured here", title_justify="left")
    table.add_column("codec")
    table.add_column("figure")
    table.add_column("value", justify="right")
    rate = report.published["rate"]
    table.add_row(rate["codec"], f"bpp on {rate['dataset']}", f"{rate['lowest_bpp']} to {rate['highest_bpp']}")
    for row in report.published["bd_rates"]:
        figure = f"BD-rate ({row['metric']}) against {row['anchor']} on {row['dataset']}"
        table.add_row(row["codec"], figure, f"{row['percent']:+.2f} %")
    for row in report.published["seconds"]:
        table.add_row(row["codec"], f"s to encode, to decode, on {row['dataset']}", f"{row['encode']:.3f}, {row['decode']:.3f}")
    table.caption = report.published["source"]
    return table
