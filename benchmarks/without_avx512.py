"""Run a command on a processor with AVX-512 as on one whose widest vectors are AVX2.

    python -m dlf.benchmarks.without_avx512 python -m dlf.benchmarks.cpu kodim23.png --model bundle

Every library that the command loads then takes its path for AVX2, without AVX's int8 products, as do the processes that it
starts, but those that are linked statically or get another environment. Clock, caches and the rest stay this processor's own.
Needs Linux on x86-64, a C compiler, and a processor whose CPUID instruction can be refused ("cpuid_fault" in /proc/cpuinfo).
"""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from dlf.runtime.files import cache_folder, write_atomically

_SOURCE = Path(__file__).with_suffix(".c")
_PRELOADED = "LD_PRELOAD"
_ARCH_PRCTL, _ARCH_GET_CPUID = 158, 0x1011  # of Linux on x86-64: <asm/unistd_64.h>, <asm/prctl.h>


def hidden() -> bool:
    """Whether CPUID is refused to this thread, by which AVX-512 is hidden from it."""
    return platform.machine() == "x86_64" and ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_GET_CPUID, 0) == 0


def _compiled() -> Path:
    """The library that hides AVX-512, in the cache: the command that this process becomes goes on needing it.

    Raises OSError or CalledProcessError: it cannot be compiled or kept.
    """
    if shutil.which("cc") is None:
        raise OSError("hiding AVX-512 needs a C compiler, and there is no cc; install gcc")
    library = cache_folder() / "libwithout-avx512.so"
    with TemporaryDirectory() as folder:
        made = Path(folder, library.name)
        options = ["-std=c11", "-O2", "-shared", "-fPIC", "-pthread", "-Wl,-z,initfirst"]
        subprocess.run(["cc", *options, str(_SOURCE), "-o", str(made), "-ldl"], check=True)
        library.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(library, made.read_bytes())
    return library


def main(command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="What to run, with its options.")]) -> None:
    """Become a command without AVX-512."""
    try:
        library = _compiled()
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
    environment = {**os.environ, _PRELOADED: ":".join(filter(None, [str(library), os.environ.get(_PRELOADED)]))}
    # The loader ignores what it cannot load, such as from a folder with a space in its name.
    probe = [sys.executable, "-c", f"import {__spec__.name} as it, sys; sys.exit(not it.hidden())"]
    if subprocess.run(probe, env=environment).returncode:
        sys.exit("AVX-512 cannot be hidden; nothing was run")
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(main)
    app()
