"""Where the native library lies: `python -m dlf.config --cflags --libs` prints what a C build needs."""

import argparse

import dlf
from dlf.runtime.core import include_path, library_path


def main() -> None:
    """Print what was asked for, on one line."""
    parser = argparse.ArgumentParser(prog="python -m dlf.config", description="Flags to build C programs with libdlf.")
    parser.add_argument("--cflags", action="store_true", help="compiler flags")
    parser.add_argument("--libs", action="store_true", help="linker flags; the rpath is the installed library's folder")
    parser.add_argument("--version", action="store_true", help="the version")
    asked = parser.parse_args()
    folder = library_path().parent
    answers = {
        "version": dlf.__version__,
        "cflags": f"-I{include_path()}",
        "libs": f"-L{folder} -Wl,-rpath,{folder} -ldlf",
    }
    chosen = [answer for name, answer in answers.items() if getattr(asked, name)]
    if not chosen:
        parser.error("ask for --cflags, --libs or --version")
    print(*chosen)


if __name__ == "__main__":
    main()
