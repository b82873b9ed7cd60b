"""Run a command on a processor with AVX-512 as on one whose widest vectors are AVX2.

    python -m dlf.benchmarks.without_avx512 python -m dlf.benchmarks.cpu kodim23.png --model bundle

Every library that the command loads then takes its path for AVX2, without AVX's int8 products, as do the processes that it
starts. Clock, caches and the rest stay this processor's own. Needs Linux on x86-64, a C compiler, and a processor whose CPUID
instruction can be refused ("cpuid_fault" in /proc/cpuinfo).
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

_SOURCE = Path(__file__).with_suffix(".c")
_LIBRARY = "libwithout-avx512.so"
_PRELOADED = "LD_PRELOAD"


def hidden() -> bool:
    """Whether this process runs so."""
    return _LIBRARY in os.environ.get(_PRELOADED, "")


def main(command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="What to run, with its options.")]) -> None:
    """Run a command without AVX-512; its exit code is the command's, or 128 and the signal's number, as of a shell."""
    with TemporaryDirectory(prefix="dlf-without-avx512-") as folder:
        library = Path(folder, _LIBRARY)
        preloaded = ":".join(filter(None, [str(library), os.environ.get(_PRELOADED)]))
        try:
            subprocess.run(["cc", "-std=c11", "-O2", "-shared", "-fPIC", _SOURCE, "-o", library], check=True)
            code = subprocess.run(command, env={**os.environ, _PRELOADED: preloaded}).returncode
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(str(error))
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(main)
    app()
