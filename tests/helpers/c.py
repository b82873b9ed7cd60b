"""Compiles and runs the examples in C, with the installed libdlf or one that is built for the test."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SIZES = [(1, 1), (37, 300), (257, 255), (256, 256), (300, 520)]  # height, width
# {sizeof x}, with the rest 0, is how the examples begin a struct.
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers")


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Blocks of colour with noise, (height, width, 3)."""
    rng = np.random.default_rng(height * 1000 + width)
    blocks = rng.integers(40, 216, (-(-height // 32), -(-width // 32), 3)).repeat(32, 0).repeat(32, 1)[:height, :width]
    return (blocks + rng.integers(-8, 9, blocks.shape)).astype(np.uint8)


def ppm(image: NDArray[np.uint8]) -> bytes:
    """An image as a binary PPM file."""
    return b"P6\n%d %d\n255\n" % (image.shape[1], image.shape[0]) + image.tobytes()


def tool(name: str, package: str) -> str:
    """The path of a program; without it the test is skipped. `package` is what Debian calls it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: {package})")
    return path


def cmake() -> str:
    """The path of CMake: of this environment, or any."""
    path = shutil.which("cmake", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if path is None:
        pytest.skip("cmake is not installed; pip install cmake")
    return path


def config(*questions: str) -> list[str]:
    """The output of `python -m dlf.config`."""
    return output(sys.executable, "-m", "dlf.config", *questions).split()


def pkg_config(*packages: str) -> list[str]:
    """Compiler and linker flags of installed packages, libdlf's "dlf" among them; without one the test is skipped."""
    (folder,) = config("--libdir")
    command = [tool("pkg-config", "pkg-config"), "--cflags", "--libs", *packages]
    run = subprocess.run(command, env=os.environ | {"PKG_CONFIG_PATH": f"{folder}/pkgconfig"}, capture_output=True, text=True)
    if run.returncode:
        pytest.skip(run.stderr.splitlines()[0])
    return run.stdout.split()


def build_example(
    folder: Path, name: str, flags: Sequence[str], sources: Sequence[Path] = (), compiler: Sequence[str] = ("cc", "-std=c11")
) -> Path:
    """Compile the example NAME.c, with further sources and flags; returns the program."""
    tool(compiler[0], "build-essential")
    program = folder / name
    libraries = pkg_config("libpng") if name == "dlf_transcode" else ["-pthread"]
    files = [str(path) for path in (next(EXAMPLES.glob(f"*/{name}.c")), *sources)]
    output(*compiler, *WARNINGS, *files, *libraries, *flags, "-o", str(program))
    return program


def output(*command: str) -> str:
    """The standard output of a command that must succeed."""
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, f"{' '.join(command)}\n{run.stdout}{run.stderr}"
    return run.stdout
