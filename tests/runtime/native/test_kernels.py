"""The kernels of every instruction set, compared with the scalar code: this processor's, and NEON in an emulator."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers.built import NATIVE, built, released
from helpers.entropy import random_tables

from dlf.runtime import errors
from dlf.runtime.libdlf import EntropyModel

ISAS = ("scalar", "avx2", "avx512", "neon")
CROSS_COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"


def processor_isas() -> set[str]:
    """The instruction sets that Linux reports for this processor."""
    flags = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text()))
    isas = {"scalar"}
    if "avx2" in flags:
        isas.add("avx2")
    if {"avx512f", "avx512bw", "avx512_vnni"} <= flags:
        isas.add("avx512")
    if os.uname().machine == "aarch64":
        isas.add("neon")
    return isas


@pytest.fixture
def entropy_bin(tmp_path: Path) -> Path:
    path = tmp_path / "entropy.bin"
    path.write_bytes(random_tables(np.random.default_rng(0), 8).to_bytes())
    return path


def assert_checked(output: str, isas: set[str]) -> None:
    assert {line.split(":")[0] for line in output.splitlines() if "levels as by" in line} == isas - {"scalar"}
    assert {line.split(":")[0] for line in output.splitlines() if "equal the scalar code's" in line} == isas - {"scalar"}
    assert {line.split(":")[0] for line in output.splitlines() if "allocates nothing" in line} == isas


def test_kernels_equal_the_scalar_code(entropy_bin):
    program = released("check_kernels") / "check_kernels"
    run = subprocess.run([program, entropy_bin], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert_checked(run.stdout, processor_isas())


def test_neon_kernels_equal_the_scalar_code(entropy_bin):
    for tool in (CROSS_COMPILER, EMULATOR):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian: g++-aarch64-linux-gnu, qemu-user)")
    folder = built(
        "neon",
        NATIVE,
        "check_kernels",
        "-DDLF_CHECKS=ON",
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={CROSS_COMPILER}",
        "-DCMAKE_EXE_LINKER_FLAGS=-static",
    )
    run = subprocess.run([EMULATOR, folder / "check_kernels", entropy_bin], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert_checked(run.stdout, {"scalar", "neon"})


@pytest.mark.parametrize("isa", ISAS)
def test_dlf_isa_is_obeyed_or_refused(isa, entropy_bin, monkeypatch):
    monkeypatch.setenv("DLF_ISA", isa)
    if isa in processor_isas():
        assert EntropyModel(entropy_bin.read_bytes()).isa == isa
    else:
        with pytest.raises(errors.InvalidArgumentError, match=f"DLF_ISA={isa}"):
            EntropyModel(entropy_bin.read_bytes())


@pytest.mark.parametrize("isa", ["", "AVX2", "sse2", "avx512 "])
def test_other_values_of_dlf_isa_are_refused(isa, entropy_bin, monkeypatch):
    monkeypatch.setenv("DLF_ISA", isa)
    with pytest.raises(errors.InvalidArgumentError, match="DLF_ISA"):
        EntropyModel(entropy_bin.read_bytes())


def test_the_best_is_the_default(entropy_bin, monkeypatch):
    monkeypatch.delenv("DLF_ISA", raising=False)
    best = max(processor_isas(), key=("scalar", "avx2", "neon", "avx512").index)
    assert EntropyModel(entropy_bin.read_bytes()).isa == best
