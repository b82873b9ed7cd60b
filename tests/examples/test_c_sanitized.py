"""The examples in C under valgrind, AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.

With a backend of this folder's (`fake_backend.c`) in place of OpenVINO, so that only libdlf and the examples are judged.
"""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from helpers.built import sanitized_library
from helpers.c import SIZES, build_example, config, picture, ppm, tool
from PIL import Image

PROGRAMS = ("dlf_transcode", "dlf_to_ppm", "dlf_batch")
FOUND = 99  # the exit status of a program in which something was found; the examples' own are 0 to 2

Run = Callable[..., bytes]


def build(folder: Path, flags: Sequence[str]) -> Path:
    fake_backend = Path(__file__).with_name("fake_backend.c")
    for name in PROGRAMS:
        build_example(folder, name, [*flags, "-Wl,--wrap=dlf_model_open"], [fake_backend])
    return folder


def runner(programs: Path, *prefix: str) -> Run:
    def run(name: str, *arguments: object, stdin: bytes = b"", status: int = 0) -> bytes:
        options = dict.fromkeys(("ASAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"), f"exitcode={FOUND}")
        command = [*prefix, str(programs / name), *map(str, arguments)]
        done = subprocess.run(command, input=stdin, env=os.environ | options, capture_output=True)
        assert done.returncode == status, done.stderr.decode(errors="replace")
        return done.stdout

    return run


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    valgrind = tool("valgrind", "valgrind")
    programs = build(tmp_path_factory.mktemp("plain"), ["-g", *config("--cflags", "--libs")])
    return runner(programs, valgrind, "--quiet", f"--error-exitcode={FOUND}", "--leak-check=full")


@pytest.fixture(scope="module")
def address_sanitized(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return runner(build(tmp_path_factory.mktemp("address"), sanitized_library("address,undefined")))


@pytest.fixture(scope="module")
def thread_sanitized(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return runner(build(tmp_path_factory.mktemp("thread"), sanitized_library("thread")))


def use_one_by_one(run: Run, bundle: Path, folder: Path) -> None:
    """Images there and back, and what is refused."""
    png, file = folder / "a.png", folder / "a.dlf"
    for size in SIZES:
        Image.fromarray(picture(*size)).save(png)
        run("dlf_transcode", bundle, png, file)
        run("dlf_transcode", bundle, file, folder / "b.png")
        assert run("dlf_to_ppm", bundle, stdin=file.read_bytes()).startswith(b"P6\n%d %d\n" % size[::-1])
    data = file.read_bytes()
    run("dlf_to_ppm", bundle, stdin=data[:-3], status=1)
    unchecked = bytes([data[0], data[1] | 0x10]) + data[2:-2]  # without a checksum, so that damage is seen late
    run("dlf_to_ppm", bundle, stdin=unchecked[:-1], status=1)
    run("dlf_to_ppm", bundle, stdin=unchecked + b"\0", status=1)
    run("dlf_transcode", folder, file, png, status=1)


def use_threads(run: Run, bundle: Path, folder: Path) -> None:
    """A batch there, and back, which gives the same as one image alone."""
    names = [f"{height}x{width}" for height in (5, 257) for width in range(10, 310, 40)]
    for name in names:
        height, width = map(int, name.split("x"))
        (folder / f"{name}.ppm").write_bytes(ppm(picture(height, width)))
    run("dlf_batch", bundle, *(folder / f"{name}.ppm" for name in names))
    run("dlf_batch", bundle, *(folder / f"{name}.dlf" for name in names))
    for name in names:
        assert run("dlf_to_ppm", bundle, stdin=(folder / f"{name}.dlf").read_bytes()) == (folder / f"{name}.ppm").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("use", [use_one_by_one, use_threads])
def test_valgrind(use, plain, toy_bundle, tmp_path):
    use(plain, toy_bundle, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("use", [use_one_by_one, use_threads])
def test_address_and_undefined_behaviour_sanitizer(use, address_sanitized, toy_bundle, tmp_path):
    use(address_sanitized, toy_bundle, tmp_path)


@pytest.mark.slow
def test_thread_sanitizer(thread_sanitized, toy_bundle, tmp_path):
    use_threads(thread_sanitized, toy_bundle, tmp_path)
