"""The `dlf-export` command: a checkpoint to a bundle, or a bundle to one of lower precision.

Exit codes: 0 done; 1 refused, nothing written; 2 wrong usage; 128 + N ended by signal N, nothing written: 130 interrupted.
"""

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer
from rich.console import Console

import dlf
from dlf.export.engine import build_engines, target_gpus
from dlf.export.output_folder import workplace
from dlf.export.progress import Progress, bar
from dlf.export.shared_files import share
from dlf.export.source import find
from dlf.runtime.backends.choice import INSTALL
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import CheckpointError, DLFError, ExportError, InvalidArgumentError
from dlf.runtime.options import takes

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]

# Options that say nothing of what a bundle is to be.
_OF_ANY_OUTPUT = {"source", "output", "triton_repository", "threads", "overwrite", "verbose", "version"}

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
stderr = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # otherwise somebody, such as nohup, wants it ignored
            signal.signal(number, _stop)
    app(prog_name="dlf-export")


def _stop(number: int, frame: object) -> None:
    """End as the signal would have ended us, but delete what is half written."""
    raise SystemExit(128 + number)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dlf-export {dlf.__version__}")
        raise typer.Exit


@dataclass(frozen=True)
class Options:
    """The options of `dlf-export`."""

    source: Annotated[
        Path,
        typer.Argument(
            help="The authors' .ckpt, a state dict, or a .safetensors file; a folder of a model hub that holds one; or an fp32 "
            "bundle, to be converted."
        ),
    ]
    output: Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE", help="The folder to write.")]
    name: Annotated[str | None, typer.Option(help="The model's name. By default the checkpoint's.")] = None
    license: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The model's licence, which dlf doctor shows. By default unknown.")
    ] = None
    precision: Annotated[Precision, typer.Option(help="What the stages compute in.")] = "fp32"
    photographs: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Photographs to compare a lower precision with fp32 on. By default scikit-learn's."),
    ] = None
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Photographs that int8 is calibrated with. By default scikit-image's and -learn's."),
    ] = None
    token_statistics: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Photographs to count tokens on, so that files code them by frequency. By default packed.",
        ),
    ] = None
    half_weights: Annotated[bool, typer.Option("--half-weights", help="Store weights in 16 bits; computing stays in 32.")] = False
    web: Annotated[
        bool, typer.Option("--web", help="Write what a web page loads: weights in 8 bits, computing in 32; see docs/web.md.")
    ] = False
    triton_repository: Annotated[
        bool,
        typer.Option("--triton-repository", help="Write a model repository of Triton Inference Server; see docs/serve.md."),
    ] = False
    engine: Annotated[
        bool, typer.Option("--engine", help="Build TensorRT engines too, in your cache; see python -m dlf.export.engine --help.")
    ] = False
    gpu: Annotated[
        list[str] | None,
        typer.Option(metavar="sm_XX", help="GPU to build engines for; may be repeated. By default this machine's."),
    ] = None
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. By default as many as there are.")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that exists.")] = False
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Show each step as it begins, and each stage's error against PyTorch.")
    ] = False
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False


@app.command(
    epilog="""Examples:

    \b
    dlf-export qp0.ckpt -o bundles/qp0
    dlf-export model.safetensors -o bundle --name "my model" -v
    dlf-export qp0.ckpt -o bundles/qp0-fp16 --precision fp16
    dlf-export bundles/qp0 -o bundles/qp0-fp16 --precision fp16 --photographs kodak/
    dlf-export bundles/qp0 -o page/model --web
    dlf-export bundles/qp0-fp16 -o triton --triton-repository
    dlf-export bundles/qp0 -o bundles/qp0-int8 --precision int8 --photographs kodak/ --calibration photographs/
    dlf-export bundles/qp0 -o bundles/qp0-coded --token-statistics photographs/
    dlf-export qp0.ckpt -o bundles/qp0-fp16 --precision fp16 --engine --gpu sm_89 --gpu sm_120"""
)
@takes(Options)
def export(options: Options) -> None:
    """Export a DLF checkpoint to a bundle: one ONNX graph a stage, and the entropy model in integers.

    Each stage is compared with PyTorch, and the integer prior with the float one; a bundle of lower precision is compared
    with the fp32 one on photographs. A bundle that fails is not written.
    """
    if find_spec("onnxruntime") is None:
        raise typer.BadParameter(f"onnxruntime is not installed; run: {INSTALL['onnxruntime']}.")
    try:
        options = replace(options, source=find(options.source))
    except (CheckpointError, OSError) as error:
        stderr.print(f"dlf-export: {error}")
        raise typer.Exit(1) from None
    source, output = options.source, options.output
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("dlf").setLevel(logging.INFO if options.verbose else logging.WARNING)
    from_bundle = (source / "manifest.json").is_file()
    if options.web and (options.precision != "fp32" or options.half_weights or options.engine or options.token_statistics):
        raise typer.BadParameter(
            "it keeps a bundle's precision and files; give such a bundle, without --precision, --half-weights, --engine or "
            "--token-statistics",
            param_hint="--web",
        )
    changing = (f for f in fields(options) if f.name not in _OF_ANY_OUTPUT and getattr(options, f.name) != f.default)
    if options.triton_repository and (not from_bundle or any(changing)):
        raise typer.BadParameter(
            "it takes a bundle as it is, without an option that changes one; export first", param_hint="--triton-repository"
        )
    converted = options.web or options.triton_repository or options.token_statistics or options.precision != "fp32"
    if from_bundle and (not converted or options.half_weights or options.name or options.license):
        raise typer.BadParameter(
            "a bundle can only be converted to another --precision or for --web, or given --token-statistics, "
            "without --half-weights, --name or --license"
        )
    if from_bundle and options.token_statistics and options.precision != "fp32":
        raise typer.BadParameter(
            "bundles of one model share their entropy model; give the fp32 bundle --token-statistics first, and convert that"
        )
    if options.calibration and options.precision != "int8":
        raise typer.BadParameter("it is for --precision int8 alone", param_hint="--calibration")
    if options.gpu and not options.engine:
        raise typer.BadParameter("it is for --engine alone", param_hint="--gpu")
    with bar(stderr) as progress:
        try:
            _require_writable(output, options.overwrite)
            gpus = target_gpus(options.gpu or ()) if options.engine else []
            _run(options, progress)
        except InvalidArgumentError as error:
            raise typer.BadParameter(str(error)) from error
        except (DLFError, OSError) as error:
            stderr.print(f"dlf-export: {error}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        if options.triton_repository:
            stderr.print(f"tritonserver --model-repository={output / 'models'}")
            return
        size = sum(file.stat().st_size for file in output.iterdir())
        shared = share(output)
        of_others = f", {shared / 1e6:.1f} MB of them shared with bundles beside it" if shared else ""
        stderr.print(f"{source} -> {output}: {size / 1e6:.1f} MB{of_others}")
        if options.web:
            return
        with _unfinished(output):
            _measure_memory(output, progress)
    with _unfinished(output):
        build_engines(Bundle(output), gpus, stderr)


@contextmanager
def _unfinished(output: Path) -> Iterator[None]:
    """What fails in the block leaves the bundle as it is."""
    try:
        yield
    except (DLFError, OSError) as error:
        stderr.print(f"dlf-export: {output} is written, but not all about it: {error}")
        raise typer.Exit(1) from None


def _measure_memory(bundle: Path, progress: Progress) -> None:
    from dlf.export import memory  # here, as in _run

    memory.record(bundle, progress)


def _require_writable(output: Path, overwrite: bool) -> None:
    """Refuse a target before an hour of work, not after."""
    is_bundle = (output / "manifest.json").is_file()
    if output.exists() and not (overwrite and is_bundle):
        remedy = "give --overwrite to replace it" if is_bundle else "it is not a bundle; choose another"
        raise ExportError(f"{output} exists; {remedy}")
    with workplace(output):
        pass


def _run(options: Options, progress: Progress) -> None:
    if options.triton_repository:
        from dlf.export import triton_repository

        triton_repository.write(options.source, options.output, options.threads)
        return
    import torch  # here, so that --help and refusals of usage are quick

    from dlf.export.bundle import write_bundle
    from dlf.export.checkpoint import load_checkpoint

    # The exporter's warnings (axes that share a name, absent torchvision) are of no use to the user.
    warnings.filterwarnings("ignore", module="torch|copyreg")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    source, output = options.source, options.output
    if options.threads is not None:
        torch.set_num_threads(options.threads)

    from dlf.export import memory, rate, tf32, token_statistics
    from dlf.export.parity import load_photographs, photograph_files
    from dlf.runtime import images

    if not options.web:
        progress.expect(memory.work())  # which comes last
    from_bundle = (source / "manifest.json").is_file()

    def export(target: Path) -> None:
        if options.token_statistics is None:
            export_without_statistics(target)
            return
        photographs = (images.load(file) for file in photograph_files(options.token_statistics))
        if from_bundle:
            token_statistics.add(source, target, photographs, progress)
            return
        with workplace(target) as place:
            export_without_statistics(place / "fp32")
            token_statistics.add(place / "fp32", target, photographs, progress)

    def export_without_statistics(target: Path) -> None:
        model = load_checkpoint(source)
        name = os.fsencode(options.name or source.stem).decode(errors="replace")  # a file's name may be no text
        write_bundle(model, target, name, license=options.license, half_weights=options.half_weights, progress=progress)

    def measure_rate(bundle: Path) -> None:
        if not rate.is_known(bundle):
            progress("rate")
            rate.record(bundle, load_photographs(options.photographs), torch.get_num_threads())

    if options.web:
        from dlf.export import web

        with workplace(output) as place:
            if not from_bundle:
                export(place / "fp32")
                source = place / "fp32"
            web.convert_bundle(source, output, options.photographs, progress)
        return
    if options.precision == "fp32":
        export(output)
        try:
            measure_rate(output)
            if not from_bundle:  # whose stages are as they were
                tf32.measure(output, load_photographs(options.photographs), progress=progress)
        except (ExportError, CheckpointError) as error:
            stderr.print(f"dlf-export: rate and TF32 not measured, so that models have no order and a GPU is slower: {error}")
        return
    from dlf.export.convert import convert_bundle
    from dlf.export.int8 import sample_photographs

    calibration = None
    if options.precision == "int8":
        calibration = load_photographs(options.calibration) if options.calibration else sample_photographs()
    convert = partial(
        convert_bundle,
        target=options.precision,
        photographs=load_photographs(options.photographs),
        calibration=calibration,
        progress=progress,
    )
    if from_bundle:
        convert(source, output)
    else:
        with workplace(output) as place:
            export(place / "fp32")
            convert(place / "fp32", output)
    measure_rate(output)
