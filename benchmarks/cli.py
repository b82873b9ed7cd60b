"""The `dlf-bench` command: rate, quality and speed of bundles on a set of images, beside everyday codecs and PyTorch.

The table goes to stdout, progress and errors to stderr. Exit codes: 0 done; 1 an image failed (the others were done), or nothing
could be measured; 2 wrong usage, or images that are not there; 3 a gate failed; 130 interrupted.
"""

import json
import os
import shlex
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import dlf
from dlf.benchmarks import bdrate, gates, machine, report_csv, report_table
from dlf.benchmarks.records import OURS, Gate, Report
from dlf.runtime.backends.choice import INSTALL
from dlf.runtime.bundles import builtin
from dlf.runtime.errors import DLFError, ImageError, InvalidArgumentError
from dlf.runtime.files import write_atomically
from dlf.runtime.images import format_of
from dlf.runtime.options import takes
from dlf.runtime.streams import printing

if TYPE_CHECKING:
    from dlf.benchmarks.progress_file import ProgressFile
    from dlf.benchmarks.run import Outcome, Settings

NOTES = [
    "Rate: whole .dlf files, header and checksum included. Quality: of the decoded pixels, on whole images at full size.",
    "Speed: each peer, direction and size of batch in its own process, from files to files; cold is a new process, with its "
    "files perhaps in the system's cache; p50 and p95 are over the repeats that follow in it. Peak memory is that process's.",
    "Several images at once are that many copies of the one; images/s and MP/s are by p50.",
    "A rival that is a command starts a process each time: its median is compared with our cold start.",
    "PyTorch decodes with the float prior replayed on the encoder's latents, and with this runtime's rANS coder.",
    "A rival is the file nearest to ours in bytes; one marked 'at its minimum' cannot be as small, which favours it.",
    "BD-rates, with four models or more: against each rival's curve, of means at fixed qualities.",
    "Patch FID is not measured: its network has no source that dlf can check. python -m dlf.benchmarks.kid has KID on VGG16.",
]
METRICS = ("psnr", "ms-ssim", "lpips", "lpips-vgg", "dists")  # in the order of metrics.NAMES; lpips is that on AlexNet

NEEDS = ("torch", "safetensors", "pytorch_msssim", "bjontegaard", "jinja2", "matplotlib", "onnxruntime")  # of the extra `bench`

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
stderr = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files may be no text
            stream.reconfigure(errors="surrogateescape")
    with printing() if sys.stdout else nullcontext():  # also of --help
        app(prog_name="dlf-bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dlf-bench {dlf.__version__}")
        raise typer.Exit


@dataclass(frozen=True)
class Options:
    """The options of `dlf-bench`."""

    dataset: Annotated[
        str,
        typer.Option(
            metavar="kodak|clic2020|PATH",
            help="The images: a set in the folder DLF_DATA, a folder, or one file.",
            show_default=False,
        ),
    ]
    model: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="BUNDLE",
            help="A bundle; several, one a rate, make a curve. By default DLF_MODEL or the built-in one.",
            show_default=False,
        ),
    ] = None
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N images.")] = None
    download: Annotated[bool, typer.Option("--download", help="Fetch the Kodak images that are missing.")] = False
    backend: Annotated[str | None, typer.Option(metavar="|".join(INSTALL), help="By default the fastest here.")] = None
    device: Annotated[
        str, typer.Option(metavar="cpu|cuda|cuda:N", help="Where dlf and --baseline run: the CPU, or an NVIDIA GPU.")
    ] = "cpu"
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="CPU threads. By default as many as the backend chooses.")
    ] = None
    metrics: Annotated[str, typer.Option(metavar="NAME,...", help=f"Of {', '.join(METRICS)}.")] = ",".join(METRICS)
    rivals: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Of avif, webp, jxl, jpeg, and .toml files that describe commands: each at the byte size nearest to ours.",
        ),
    ] = ""
    repeats: Annotated[
        int, typer.Option(metavar="N", min=0, help="Timed repeats on the first image, after a cold one; 0 leaves speed out.")
    ] = 5
    batch: Annotated[str, typer.Option(metavar="N,...", help="Time batches of N times that image too, files to files.")] = ""
    baseline: Annotated[
        str, typer.Option(metavar="NAME,...", help="Peers to time in the same run: torch, or other backends.")
    ] = ""
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="For --baseline torch: what the bundle was exported from.",
        ),
    ] = None
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write every figure. While it runs, FILE.partial keeps what is done: an interrupted run continues from it.",
        ),
    ] = None
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write a row for every image and codec.")] = None
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page with plots and the pictures to compare.")
    ] = None
    sheet_file: Annotated[
        Path | None,
        typer.Option("--contact-sheet", metavar="FILE", help="Write one picture: each original beside the codecs' pictures."),
    ] = None
    max_bpp: Annotated[float | None, typer.Option(metavar="X", help="Gate: the mean bits per pixel.")] = None
    max_lpips: Annotated[float | None, typer.Option(metavar="X", help="Gate: the mean LPIPS (AlexNet).")] = None
    min_speedup: Annotated[
        float | None, typer.Option(metavar="X", help="Gate: the speed against the first --baseline, encoding and decoding.")
    ] = None
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False


@app.command(
    epilog="""Examples:

    \b
    dlf-bench --dataset kodak
    dlf-bench --dataset photos/ --limit 4 --model bundle --metrics psnr,lpips --repeats 0
    dlf-bench --dataset kodak --model bundle --baseline torch --checkpoint model.ckpt
    dlf-bench --dataset kodak --model bundle --rivals avif,webp --html report.html --json report.json
    dlf-bench --dataset kodak --model bundle --max-bpp 0.02 --max-lpips 0.3       for a continuous integration"""
)
@takes(Options)
def bench(options: Options) -> None:
    """Measure a bundle on images: the rate of real files, their quality, the speed; beside everyday codecs and PyTorch.

    Exit codes: 0 done; 1 an image failed; 2 wrong usage; 3 a gate failed.
    """
    if missing := [module for module in NEEDS if find_spec(module) is None]:
        raise typer.BadParameter(f"{', '.join(missing)} is not installed; run: pip install 'dlf[bench,onnxruntime]'.")
    for file in (options.json_file, options.csv_file, options.html_file, options.sheet_file):
        if file and not file.absolute().parent.is_dir():
            raise typer.BadParameter(f"{file.absolute().parent} is no folder to write {file.name} into.")
    if options.sheet_file:
        try:
            format_of(options.sheet_file.suffix)
        except ImageError as error:
            raise typer.BadParameter(str(error), param_hint="--contact-sheet") from error
    from dlf.benchmarks import datasets  # everything heavy only now, so that --help is quick
    from dlf.benchmarks.metrics import NAMES
    from dlf.benchmarks.progress_file import ProgressFile
    from dlf.benchmarks.rivals import command, pillow
    from dlf.benchmarks.run import Settings

    names = _names(options.metrics, METRICS, "--metrics")
    peers = _names(options.baseline, ("torch", *INSTALL), "--baseline")
    if not all(size.isdecimal() and int(size) for size in _split(options.batch)):
        raise typer.BadParameter(f"{options.batch!r} is not a list of batch sizes.", param_hint="--batch")
    if "torch" in peers and options.checkpoint is None:
        raise typer.BadParameter("torch needs the checkpoint that the bundle was exported from.", param_hint="--checkpoint")
    if (peers or options.batch) and not options.repeats:
        raise typer.BadParameter("it must be 1 at least for --baseline and --batch.", param_hint="--repeats")
    if options.min_speedup is not None and not peers:
        raise typer.BadParameter("there is no --baseline to compare with.", param_hint="--min-speedup")
    if options.max_lpips is not None and "lpips" not in names:
        raise typer.BadParameter("lpips is not among --metrics.", param_hint="--max-lpips")
    models = options.model or [Path(os.environ.get("DLF_MODEL") or builtin.path())]
    try:
        images = datasets.find(options.dataset, options.download)[: options.limit]
        rivals = [
            command.load(Path(name)) if name.endswith(".toml") else pillow.find(name)
            for name in dict.fromkeys(_split(options.rivals))
        ]
        if len({OURS, *(rival.name for rival in rivals)}) <= len(rivals):
            raise InvalidArgumentError(f"Two codecs have one name: {', '.join((OURS, *(rival.name for rival in rivals)))}.")
    except InvalidArgumentError as error:
        raise typer.BadParameter(str(error)) from error
    settings = Settings(
        images=images,
        models=models,
        metrics=[NAMES[METRICS.index(name)] for name in names],
        backend=options.backend,
        threads=options.threads,
        device=options.device,
        rivals=rivals,
        baselines=peers,
        checkpoint=options.checkpoint,
        repeats=options.repeats,
        batches=[int(size) for size in _split(options.batch)],
        with_pictures=options.html_file is not None or options.sheet_file is not None,
    )
    json_file = options.json_file
    kept = ProgressFile(json_file.with_name(f"{json_file.name}.partial") if json_file else None)
    outcome = _run(settings, kept)
    judged = gates.judge(outcome.models, options.max_bpp, options.max_lpips, options.min_speedup)
    report = _report(options.dataset, settings, outcome, judged)
    written = _write(options, report, outcome)
    with printing():  # last, since its reader may have left
        report_table.show(report, Console())
    if not written:
        raise typer.Exit(1)
    if any(found.failures for found in outcome.models):
        raise typer.Exit(1)
    kept.remove()
    if not all(gate.passed for gate in report.gates):
        raise typer.Exit(3)


def _run(settings: "Settings", kept: "ProgressFile") -> "Outcome":
    """Run the measurements, with a progress bar on a terminal; a DLFError or an interruption ends the command."""
    from dlf.benchmarks.run import Progress as Tell
    from dlf.benchmarks.run import run

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task("images", total=len(settings.images) * len(settings.models))
        tell = Tell(
            image=lambda _: bar.advance(task),
            failure=lambda failure: stderr.print(f"dlf-bench: {failure.image}: {failure.error}"),
            speed=lambda what: bar.update(task, description=what),
        )
        try:
            return run(settings, kept, tell)
        except InvalidArgumentError as error:
            raise typer.BadParameter(str(error)) from error
        except DLFError as error:
            stderr.print(f"dlf-bench: {error}")
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            resume = f" {kept.path} has the finished results; run the same command to continue." if kept.path else ""
            stderr.print(f"dlf-bench: interrupted.{resume}")
            raise typer.Exit(130) from None


def _write(options: Options, report: Report, outcome: "Outcome") -> bool:
    """Write the files that the options name, and tell of those that cannot be. Returns whether all could."""

    def write_json(path: Path) -> None:
        write_atomically(path, json.dumps(report.to_json(), indent=1, allow_nan=False).encode())

    def write_html(path: Path) -> None:
        from dlf.benchmarks import report_html  # Matplotlib, Jinja

        report_html.write(report, outcome.pictures, path)

    def write_sheet(path: Path) -> None:
        from dlf.benchmarks import contact_sheet

        contact_sheet.write(report, outcome.pictures, path)

    written = True
    for path, write in (
        (options.json_file, write_json),
        (options.csv_file, partial(report_csv.write, report)),
        (options.html_file, write_html),
        (options.sheet_file, write_sheet),
    ):
        try:
            if path:
                write(path)
        except OSError as error:
            stderr.print(f"dlf-bench: {path}: cannot be written ({error.strerror})")
            written = False
    return written


def _report(dataset: str, settings: "Settings", outcome: "Outcome", judged: list[Gate]) -> Report:
    published: dict[str, Any] = json.loads((files("dlf.benchmarks") / "anchors.json").read_text())
    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(["dlf-bench", *sys.argv[1:]]),
        dataset=dataset,
        metrics=list(settings.metrics),
        machine=machine.describe(),
        models=outcome.models,
        bd_rates=bdrate.between(outcome.models, settings.metrics),
        gates=judged,
        notes=NOTES,
        published=published,
    )


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _names(given: str, known: tuple[str, ...], option: str) -> list[str]:
    """Split a list of names and remove repeats. Raises typer.BadParameter for an unknown name."""
    found = list(dict.fromkeys(_split(given)))
    for name in found:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is unknown; choose from {', '.join(known)}.", param_hint=option)
    return found
