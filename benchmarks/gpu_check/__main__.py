"""The command: `python -m dlf.benchmarks.gpu_check`; see the package."""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dlf.benchmarks.gpu_check.runner import Result, Step, module, run
from dlf.runtime.files import write_atomically
from dlf.runtime.gpu import driver

TESTS = Path(__file__).resolve().parents[2] / "tests"  # of the repository
# Where the tests marked `gpu` are, and the modules without which these files cannot be read. Others need far more.
ON_GPU = ("runtime/gpu", "runtime/backends", "kernels", "benchmarks/test_torch_codec.py")
MODULES = ("pytest", "hypothesis", "torch", "onnx", "onnxruntime", "safetensors")
NO_TORCH = "torch is not installed"


def steps(bundle: Path | None = None) -> list[Step]:
    """Return the steps in their order, the most telling first."""
    no_torch = None if find_spec("torch") else NO_TORCH
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    small = module("kernels", "--small")
    return [
        Step("machine", module("machine"), 120),
        Step("kernels", module("kernels"), 600),
        Step("graphs", module("graphs"), 300),
        Step("sharing", module("sharing"), 300, no_torch),
        Step("codec", module("codec"), 600, no_torch),
        Step(
            "sanitizer",
            [sanitizer, "--error-exitcode", "99", *small],
            600,
            None if Path(sanitizer).exists() else "compute-sanitizer is not installed",
        ),
        Step("engines", module("engines", *([str(bundle)] if bundle else [])), 1800),
        Step("speed", module("speed"), 900, no_torch),
        Step(
            "pytest",
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-m",
                "gpu",
                "-p",
                "no:cacheprovider",
                *(str(TESTS / each) for each in ON_GPU),
            ],
            1800,
            _cannot_test(),
        ),
    ]


def _cannot_test() -> str | None:
    if not TESTS.is_dir():
        return "the tests are not here, only the package"
    if lacking := [name for name in MODULES if find_spec(name) is None]:
        return f"not installed: {', '.join(lacking)}"
    return driver.missing()


def table(results: Sequence[Result]) -> Table:
    """Return the results as a table."""
    colours = {"pass": "green", "skip": "yellow"}
    found = Table("step", "", "seconds", "", box=box.SIMPLE_HEAD)
    found.columns[2].justify = "right"
    for result in results:
        colour = colours.get(result.verdict, "bold red")
        found.add_row(result.name, f"[{colour}]{result.verdict}[/]", f"{result.seconds:.1f}", escape(result.fact))
    return found


def main(
    json_file: Annotated[Path, typer.Option("--json", metavar="FILE", help="Receives the results, after each step.")] = Path(
        "gpu_check.json"
    ),
    only: Annotated[list[str] | None, typer.Option(metavar="STEP", help="Do this step; may be repeated. By default all.")] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="The bundle for the step engines. By default the built-in model.")
    ] = None,
) -> None:
    """Check a machine with an NVIDIA GPU. Exit codes: 0 nothing failed, 1 a step failed, 2 wrong usage."""
    known = steps(bundle)
    if unknown := set(only or ()) - {step.name for step in known}:
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(step.name for step in known)}.")
    stderr, results = Console(stderr=True), []
    for step in known:
        if only and step.name not in only:
            continue
        with stderr.status(f"{step.name}, at most {step.seconds:.0f} s"):
            results.append(run(step))
        stderr.print(f"{step.name}: {results[-1].verdict}, {results[-1].fact}", markup=False, highlight=False)
        write_atomically(json_file, json.dumps([asdict(result) for result in results], indent=1).encode())
    Console().print(table(results))
    if any(result.verdict not in ("pass", "skip") for result in results):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
