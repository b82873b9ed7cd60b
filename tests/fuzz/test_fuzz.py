"""Hostile inputs, under AddressSanitizer and UndefinedBehaviorSanitizer: the fuzz targets of this folder.

Without libFuzzer, each target is fed its seeds and the inputs that once broke it (`regressions/TARGET/`). With it (clang), each
also looks for new ones, for DLF_FUZZ_SECONDS (60), two at a time. What it finds lies in `regressions/` afterwards, to be
committed with the repair. The corpus stays in DLF_FUZZ_CORPUS, if that names a folder, and the next run goes on from it.
"""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.built import QUICKLY_COMPILED, sanitized
from helpers.fuzz import write_seeds

FOLDER = Path(__file__).parent
TARGETS = sorted(path.stem for path in FOLDER.glob("*.cpp") if path.stem != "feed_files")
MINIMAL_TARGET = """extern "C" int LLVMFuzzerTestOneInput(const unsigned char *, unsigned long) { return 0; }
#ifndef __clang__
int main() { return 0; }
#endif
"""
SECONDS = int(os.environ.get("DLF_FUZZ_SECONDS", "60"))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "seeds"
    write_seeds(folder)
    return folder


def build(folder: Path, compiler: str, *sanitizers: str, options: tuple[str, ...] = ()) -> Path:
    """The folder of the built targets. Skips the test where the compiler or its sanitizers are not installed."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    source = folder / "minimal.cpp"
    source.write_text(MINIMAL_TARGET)
    flags = [f"-fsanitize={','.join(sanitizers)}", "-o", folder / "minimal"]
    if subprocess.run([compiler, source, *flags], capture_output=True).returncode != 0:
        pytest.skip(f"{compiler} has no run-time library of {', '.join(sanitizers)}")
    return sanitized(compiler, "address,undefined", "all", *options)


@pytest.fixture(scope="module")
def feeders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("fuzz"), "g++", "address", "undefined", options=(QUICKLY_COMPILED,))


@pytest.fixture(scope="module")
def campaigns(tmp_path_factory: pytest.TempPathFactory, seeds: Path) -> dict[str, "subprocess.CompletedProcess[str]"]:
    """Every target's run in libFuzzer."""
    folder = tmp_path_factory.mktemp("fuzz")
    programs = build(folder, "clang++", "fuzzer", "address", "undefined")

    def run(target: str) -> "subprocess.CompletedProcess[str]":
        found, crashes = Path(os.environ.get("DLF_FUZZ_CORPUS") or folder / "corpus") / target, FOLDER / "regressions" / target
        found.mkdir(parents=True, exist_ok=True)
        crashes.mkdir(parents=True, exist_ok=True)
        # No limit on the peak of the whole process: Linux lets it begin at that of the process that started it.
        memory = ("-rss_limit_mb=0", "-malloc_limit_mb=2048")
        options = (f"-max_total_time={SECONDS}", "-timeout=10", *memory, f"-artifact_prefix={crashes}/")
        return subprocess.run(
            [programs / target, *options, found, seeds / target, crashes], capture_output=True, text=True, errors="replace"
        )

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(TARGETS, pool.map(run, TARGETS), strict=True))


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_and_regressions(target, feeders, seeds):
    files = [path for folder in (seeds, FOLDER / "regressions") for path in sorted((folder / target).glob("*"))]
    assert files
    run = subprocess.run([feeders / target, *files], capture_output=True, text=True, errors="replace")
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{len(files)} files\n"


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_fuzzing(target, campaigns):
    run = campaigns[target]
    assert run.returncode == 0, run.stderr[-5000:]
    assert "DONE" in run.stderr
