"""Compiles the kernels ahead of time, also for GPUs that this machine does not have: `python -m dlf.kernels.compile -o FOLDER`.

The folder receives one cubin for each kernel, padded width and GPU, and kernels.json, which says how to launch them with the
driver API alone:

    {"triton": "3.9.0",
     "kernels": [{"kernel": "prior_begin", "gpu": "sm_89", "constants": {"d": 128, "tile": 16, "chunk": 64},
                  "file": "prior_begin-d128-sm_89.cubin", "sha256": "...",
                  "symbol": "prior_begin",                                  the function's name within the cubin
                  "arguments": [["r", "*i32"], ..., ["global_scratch", "*i8"], ["profile_scratch", "*i8"]],
                  "threads": 256, "shared": 20480,                          a block's threads, its bytes of dynamic shared memory
                  "registers": 48, "stack": 0, "spill_stores": 0, "spill_loads": 0}, ...]}

The kernels that come with dlf are in `cubins`, next to this file; a test compares them with their sources. Compile them again
after a change to those.

Arguments are in the kernel's order, * is a pointer; the two scratch pointers are Triton's own and may be null. Every other
pointer must be a multiple of 16. Grids are in launches.py.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import triton
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dlf.kernels import entropy_params, launches, pixels, symbols, vq_lookup

GPUS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_103", "sm_120", "sm_121")
# Kernels whose products and sums may become fused multiply-adds. All others are defined bit by bit: x * y + z rounds twice.
FUSED = ("vq_lookup",)
INDEX = "kernels.json"


@dataclass(frozen=True)
class Cubin:
    """An entry of kernels.json, see above. Sizes are in bytes; stack and spills are those of one thread."""

    kernel: str
    gpu: str
    constants: dict[str, int]
    file: str
    sha256: str
    symbol: str
    arguments: list[tuple[str, str]]
    threads: int
    shared: int
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int


def builds(gpu: str, widths: Iterable[int] = launches.WIDTHS) -> Iterator[tuple[str, int]]:
    """Yield the kernels of a GPU, each with the padded width it is compiled for (0 for those that have none).

    sm_75 lacks the prior's: Triton has no int8 products for it. The prior runs on the CPU there.
    """
    yield from ((kernel, 0) for kernel in launches.WARPS if kernel not in launches.PRIOR)
    if gpu != "sm_75":
        yield from ((kernel, d) for d in widths for kernel in launches.PRIOR)


def function(kernel: str) -> Any:
    """Return the Triton function of a kernel."""
    return next(getattr(module, kernel) for module in (entropy_params, symbols, vq_lookup, pixels) if hasattr(module, kernel))


def compile_kernel(kernel: str, d: int, gpu: str) -> tuple[Cubin, bytes]:
    """Compile a kernel of `builds` for `gpu`, such as "sm_89". Raises ValueError if Triton interprets kernels."""
    if knobs.runtime.interpret:
        raise ValueError("with TRITON_INTERPRET=1 Triton compiles nothing: unset it")
    source = function(kernel)
    constants = launches.constants(kernel, d)
    types = {name: "constexpr" if name in constants else launches.ARGUMENT_TYPES[name] for name in source.arg_names}
    aligned = {(at,): [["tt.divisibility", 16]] for at, kind in enumerate(types.values()) if kind.startswith("*")}
    with _logged() as log:
        compiled = triton.compile(
            ASTSource(source, types, constants, aligned),
            target=GPUTarget("cuda", int(gpu.removeprefix("sm_")), 32),
            options={"num_warps": launches.WARPS[kernel], "enable_fp_fusion": kernel in FUSED},
        )
    if compiled.metadata.global_scratch_size or compiled.metadata.profile_scratch_size:
        raise RuntimeError(f"{kernel} wants scratch memory of Triton's, which a launch by the driver API does not give it")
    data: bytes = compiled.asm["cubin"]
    arguments = [(name, kind) for name, kind in types.items() if kind != "constexpr"]
    cubin = Cubin(
        kernel=kernel,
        gpu=gpu,
        constants=constants,
        file=f"{kernel}-d{d}-{gpu}.cubin" if d else f"{kernel}-{gpu}.cubin",
        sha256=hashlib.sha256(data).hexdigest(),
        symbol=compiled.metadata.name,
        arguments=[*arguments, ("global_scratch", "*i8"), ("profile_scratch", "*i8")],
        threads=32 * launches.WARPS[kernel],
        shared=compiled.metadata.shared,
        **_resources(log.getvalue()),
    )
    return cubin, data


def write_kernels(folder: Path, compiled: Sequence[tuple[Cubin, bytes]]) -> None:
    """Write the cubins and then kernels.json, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for cubin, data in compiled:
        _write(folder / cubin.file, data)
    index = {"triton": triton.__version__, "kernels": [asdict(cubin) for cubin, _ in compiled]}
    _write(folder / INDEX, (json.dumps(index, indent=1) + "\n").encode())


@contextlib.contextmanager
def _logged() -> Iterator[io.StringIO]:
    """Let Triton compile without its cache, leave no files, and collect what ptxas reports of the kernel."""
    log = io.StringIO()
    with contextlib.ExitStack() as stack:
        for group in (knobs.compilation, knobs.nvidia, knobs.cache):
            stack.enter_context(group.scope())
        knobs.cache.dir = stack.enter_context(tempfile.TemporaryDirectory())
        knobs.compilation.always_compile = True
        knobs.compilation.disable_line_info = True
        knobs.nvidia.dump_ptxas_log = True
        # The ptxas of CUDA 12 for all GPUs: what that of CUDA 13 writes (Triton's own choice from sm_90 on) needs its driver.
        knobs.nvidia.ptxas_blackwell = knobs.nvidia.ptxas.path
        stack.enter_context(contextlib.redirect_stdout(log))
        yield log


def _resources(log: str) -> dict[str, int]:
    """Read registers, stack and spills from the report of `ptxas -v`."""
    spills = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    registers = re.search(r"Used (\d+) registers", log)
    if not spills or not registers:
        raise RuntimeError(f"ptxas reports no registers or spills:\n{log}")
    stack, stores, loads = map(int, spills.groups())
    return {"registers": int(registers[1]), "stack": stack, "spill_stores": stores, "spill_loads": loads}


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def _table(cubins: Iterable[Cubin]) -> Table:
    table = Table("kernel", "d", "GPU", "registers", "spills", "shared", "threads")
    for column in table.columns[3:]:
        column.justify = "right"
    for cubin in cubins:
        spills = str(cubin.spill_stores + cubin.spill_loads)
        width = str(cubin.constants.get("d", "-"))
        numbers = [str(cubin.registers), spills, str(cubin.shared), str(cubin.threads)]
        table.add_row(cubin.kernel, width, cubin.gpu, *numbers)
    return table


def _check_gpus(gpus: list[str]) -> list[str]:
    for gpu in gpus:
        if gpu not in GPUS:
            raise typer.BadParameter(f"{gpu}: not one of {', '.join(GPUS)}")
    return gpus


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that receives the cubins and kernels.json.")],
    gpu: Annotated[list[str], typer.Option(help="A GPU to compile for; may be repeated.", callback=_check_gpus)] = [*GPUS],  # noqa: B006
) -> None:
    """Compile the GPU kernels and report their registers, spills and shared memory (bytes a thread or block)."""
    jobs = [(kernel, d, name) for name in gpu for kernel, d in builds(name)]
    console = Console(stderr=True)
    compiled = [compile_kernel(*job) for job in track(jobs, "Compiling", console=console)]
    write_kernels(output, compiled)
    Console().print(_table(cubin for cubin, _ in compiled))


if __name__ == "__main__":
    typer.run(main)
