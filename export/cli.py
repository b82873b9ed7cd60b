"""The `dlf-export` command: a checkpoint to a bundle.

Exit codes: 0 done; 1 refused, nothing written; 2 wrong usage; 130 interrupted.
"""

import logging
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import dlf
from dlf.runtime.errors import DLFError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
stderr = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command."""
    app(prog_name="dlf-export")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dlf-export {dlf.__version__}")
        raise typer.Exit


@app.command(
    epilog="""Examples:

    \b
    dlf-export qp0.ckpt -o bundles/qp0
    dlf-export model.safetensors -o bundle --name "my model" -v"""
)
def export(
    checkpoint: Annotated[Path, typer.Argument(help="The authors' .ckpt, a state dict, or a .safetensors file.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE", help="The folder to write.")],
    name: Annotated[str | None, typer.Option(help="The model's name. By default the checkpoint's.")] = None,
    half_weights: Annotated[
        bool, typer.Option("--half-weights", help="Store weights in 16 bits; computing stays in 32.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. By default as many as there are.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that exists.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Tell each stage's error against PyTorch.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Export a DLF checkpoint to a bundle: one ONNX graph a stage, and the entropy model in integers.

    Each stage is compared with PyTorch, and the integer prior with the float one; a bundle that fails is not written.
    """
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("dlf").setLevel(logging.INFO if verbose else logging.WARNING)
    if output.exists() and not (overwrite and (output / "manifest.json").is_file()):
        remedy = (
            "give --overwrite to replace it" if (output / "manifest.json").is_file() else "it is not a bundle; choose another"
        )
        stderr.print(f"dlf-export: {output} exists; {remedy}")
        raise typer.Exit(1)
    try:
        _run(checkpoint, output, name or checkpoint.stem, half_weights, threads)
    except DLFError as error:
        stderr.print(f"dlf-export: {error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _run(checkpoint: Path, output: Path, name: str, half_weights: bool, threads: int | None) -> None:
    import torch  # here, so that --help and refusals of usage are quick

    from dlf.export.bundle import write_bundle
    from dlf.export.checkpoint import load_checkpoint

    # What the exporter warns of (axes that share a name, absent torchvision) concerns nobody here.
    warnings.filterwarnings("ignore", module="torch|copyreg")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    if threads is not None:
        torch.set_num_threads(threads)
    with stderr.status("loading") as status:
        model = load_checkpoint(checkpoint)
        write_bundle(model, output, name, half_weights=half_weights, progress=lambda step: status.update(step))
    size = sum(file.stat().st_size for file in output.iterdir())
    stderr.print(f"{checkpoint} -> {output}: {size / 1e6:.1f} MB")
