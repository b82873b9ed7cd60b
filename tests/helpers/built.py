"""What tests compile of libdlf, which takes minutes: it is built in build/ and stays there.

So tests share it, those of `make test` and of `make test-slow` too, and the next run compiles only what has changed.
"""

from pathlib import Path

from filelock import FileLock
from helpers.c import ROOT, cmake, output

NATIVE = ROOT / "runtime" / "native"
# Without optimisation, and with line numbers alone to debug by, the code is compiled in a quarter of the time.
QUICKLY_COMPILED = "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O0 -g1"


def built(name: str, source: Path, target: str, *settings: str) -> Path:
    """Build a target of a CMake project; returns its folder, the one of this name in build/."""
    folder = ROOT / "build" / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        output(cmake(), "-S", str(source), "-B", str(folder), *settings)
        output(cmake(), "--build", str(folder), "--target", target, "-j2")
    return folder


def released(target: str) -> Path:
    """Build libdlf as it is released, or its check of kernels."""
    return built("released", NATIVE, target, "-DDLF_CHECKS=ON")


def sanitized(compiler: str, sanitizers: str, target: str, *settings: str) -> Path:
    """Build the fuzz targets, or libdlf in the folder libdlf/ beneath, under sanitizers."""
    name = f"sanitized/{compiler}-{sanitizers.replace(',', '-')}"
    compiled = (f"-DCMAKE_CXX_COMPILER={compiler}", f"-DSANITIZERS={sanitizers}", *settings)
    return built(name, ROOT / "tests" / "fuzz", target, *compiled)


def sanitized_library(sanitizers: str) -> list[str]:
    """Build libdlf under sanitizers; returns the flags of programs that use it."""
    folder = sanitized("g++", sanitizers, "dlf", QUICKLY_COMPILED) / "libdlf"
    flags = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g"]
    return [*flags, f"-I{NATIVE / 'include'}", f"-L{folder}", f"-Wl,-rpath,{folder}", "-ldlf"]
