"""The paths of the native library: `python -m dlf.config --cflags --libs` prints what a C build needs."""

import argparse
import shlex
from importlib.util import find_spec
from pathlib import Path

import dlf
from dlf.runtime.bundles import builtin
from dlf.runtime.libdlf import include_path, library_path


def main() -> None:
    """Print what was asked for, on one line."""
    include, folder = include_path(), library_path().parent
    answers = {
        "version": (dlf.__version__, "the version"),
        "cflags": (shlex.quote(f"-I{include}"), "compiler flags"),
        "libs": (
            shlex.join((f"-L{folder}", f"-Wl,-rpath,{folder}", "-ldlf")),
            "linker flags; the rpath is the installed library's folder",
        ),
        "includedir": (str(include), "the folder of dlf.h"),
        "libdir": (str(folder), "the folder of libdlf; its pkgconfig/ is for PKG_CONFIG_PATH"),
        "model": (str(builtin.path()), "the folder of the built-in model's bundle"),
        "openvino": (_openvino(), "the folder of OpenVINO's C library, for DLF_OPENVINO"),
    }
    parser = argparse.ArgumentParser(prog="python -m dlf.config", description="What it takes to build C programs with libdlf.")
    for name, (_, meaning) in answers.items():
        parser.add_argument(f"--{name}", action="store_true", help=meaning)
    asked = parser.parse_args()
    chosen = [answer for name, (answer, _) in answers.items() if getattr(asked, name)]
    if not chosen:
        parser.error("ask for at least one of --" + ", --".join(answers))
    if None in chosen:
        parser.error("OpenVINO is not installed; pip install openvino")
    print(*chosen)


def _openvino() -> str | None:
    """Return the path of libopenvino_c in the wheel from PyPI; None if the wheel is not installed."""
    package = find_spec("openvino")
    return str(Path(package.origin).parent / "libs") if package and package.origin else None


if __name__ == "__main__":
    main()
