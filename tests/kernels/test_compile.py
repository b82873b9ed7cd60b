"""Kernels compiled ahead of time, judged by what NVIDIA's cuobjdump finds in the cubins."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

import triton
from triton import knobs

from dlf.kernels import compile as compiler
from dlf.kernels import launches
from dlf.runtime.gpu import cubins

pytestmark = pytest.mark.skipif(knobs.runtime.interpret, reason="TRITON_INTERPRET is set: Triton compiles nothing")

# A block's registers and the shared memory that the smallest of a generation offers it (CUDA C++ Programming Guide, "Technical
# Specifications per Compute Capability").
REGISTERS = 65536
SHARED = {
    "sm_75": 64,
    "sm_80": 163,
    "sm_86": 99,
    "sm_89": 99,
    "sm_90": 227,
    "sm_100": 227,
    "sm_103": 227,
    "sm_120": 99,
    "sm_121": 99,
}  # KiB


def cuobjdump(*arguments: str) -> str:
    return subprocess.run([knobs.nvidia.cuobjdump.path, *arguments], check=True, capture_output=True, text=True).stdout


def check(cubin: dict, path: Path) -> None:
    """What kernels.json says of a cubin holds, it fits its GPU, and nothing is spilled."""
    data = path.read_bytes()
    assert hashlib.sha256(data).hexdigest() == cubin["sha256"]
    usage = cuobjdump("--dump-resource-usage", str(path))
    (symbol,) = re.findall(r"Function (\w+):", usage)
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    assert symbol == cubin["symbol"]
    assert found["REG"] == cubin["registers"]
    assert found["STACK"] == cubin["stack"] == cubin["spill_stores"] == cubin["spill_loads"] == found["LOCAL"] == 0
    assert cubin["registers"] * cubin["threads"] <= REGISTERS
    assert cubin["shared"] <= SHARED[cubin["gpu"]] * 1024

    elf = cuobjdump("--dump-elf", str(path))
    parameters = re.findall(r"Ordinal\s*:\s*0x(\w+).*?Size\s*:\s*0x(\w+)", elf, re.DOTALL)
    sizes = [int(size, 16) for _, size in sorted((int(ordinal, 16), size) for ordinal, size in parameters)]
    assert sizes == [8 if kind.startswith("*") else 4 for _, kind in cubin["arguments"]]


def check_folder(folder: Path, gpus: list[str], widths: tuple[int, ...]) -> None:
    index = json.loads((folder / compiler.INDEX).read_text())
    assert re.match(r"\d+\.\d+", index["triton"])
    entries = index["kernels"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([compiler.INDEX, *(cubin["file"] for cubin in entries)])
    prior = {(name, gpu, d) for name in launches.PRIOR for gpu in gpus if gpu != "sm_75" for d in widths}
    others = {(name, gpu, None) for name in launches.WARPS if name not in launches.PRIOR for gpu in gpus}
    there = [(cubin["kernel"], cubin["gpu"], cubin["constants"].get("d")) for cubin in entries]
    assert sorted(there, key=str) == sorted(prior | others, key=str)
    for cubin in entries:
        check(cubin, folder / cubin["file"])


def test_one_gpu(tmp_path):
    """At the released model's width."""
    compiled = [compiler.compile_kernel(kernel, d, "sm_89") for kernel, d in compiler.builds("sm_89", [128])]
    compiler.write_kernels(tmp_path, compiled)
    check_folder(tmp_path, ["sm_89"], (128,))


def test_shipped_cubins_are_whole():
    check_folder(cubins.FOLDER, list(compiler.GPUS), launches.WIDTHS)


@pytest.mark.slow
def test_shipped_cubins_are_what_their_sources_compile_to(tmp_path):
    """For the oldest and the newest GPU. All are compiled together, so that the others are of the same sources."""
    gpus = [compiler.GPUS[0], compiler.GPUS[-1]]
    command = [sys.executable, "-m", "dlf.kernels.compile", "-o", str(tmp_path), *(f"--gpu={gpu}" for gpu in gpus)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert run.stdout.count("prior_between") == len(launches.WIDTHS)  # of which sm_75 has none
    check_folder(tmp_path, gpus, launches.WIDTHS)
    index = json.loads((cubins.FOLDER / compiler.INDEX).read_text())
    if index["triton"] != triton.__version__:
        pytest.skip(f"the shipped cubins are of Triton {index['triton']}, and {triton.__version__} is installed")
    for fresh in tmp_path.glob("*.cubin"):
        assert fresh.read_bytes() == (cubins.FOLDER / fresh.name).read_bytes(), f"{fresh.name}: compile the kernels again"


def shipped() -> list[dict]:
    return json.loads((cubins.FOLDER / compiler.INDEX).read_text())["kernels"]


DIVIDING = ("pad_pixels", "quantise")  # divisions are made of FFMA
IN_INTEGERS = (*launches.PRIOR, "first_params", "select")


@pytest.mark.parametrize(
    "kernel", ["crop_pixels", "update", "check_finite", *(pytest.param(name, marks=pytest.mark.slow) for name in IN_INTEGERS)]
)
def test_shipped_cubins_fuse_no_products_and_sums(kernel):
    """In all kernels that are defined bit by bit but those that divide."""
    assert {"crop_pixels", "update", "check_finite", *IN_INTEGERS, *DIVIDING, *compiler.FUSED} == launches.WARPS.keys()
    for cubin in shipped():
        if cubin["kernel"] == kernel:
            sass = cuobjdump("--dump-sass", str(cubins.FOLDER / cubin["file"]))
            assert "EXIT" in sass
            assert "FFMA" not in sass, cubin["file"]


@pytest.mark.parametrize("kernel", DIVIDING)
def test_kernels_with_divisions_are_compiled_without_fusion(monkeypatch, kernel):
    compiled = []
    compile_ = compiler.triton.compile

    def record(*arguments, **options):
        compiled.append(compile_(*arguments, **options))
        return compiled[0]

    monkeypatch.setattr(compiler.triton, "compile", record)
    compiler.compile_kernel(kernel, 0, "sm_89")
    ptx = compiled[0].asm["ptx"]
    assert "div.rn.f32" in ptx
    assert not re.search(r"\bfma\.|\bmad\.\w*f32", ptx)
    assert not re.search(r"\b(add|sub|mul)\.f32", ptx)  # with .rn ptxas may not fuse them


def test_shipped_cubins_need_no_driver_of_cuda_13():
    """By the ELF header: up to sm_90 the ABI version is 7, which drivers of CUDA 12 load; newer GPUs have 8 in CUDA 12.9 too."""
    assert {cubin["gpu"] for cubin in shipped()} == set(compiler.GPUS)
    for cubin in shipped():
        path = cubins.FOLDER / cubin["file"]
        assert path.read_bytes()[8] == (8 if int(cubin["gpu"][3:]) >= 100 else 7), cubin["file"]
        if cubin["kernel"] == "crop_pixels":
            assert re.search(r"toolkit=12\.?9\b", cuobjdump("--dump-elf", str(path))), cubin["file"]


def test_products_are_tensor_core_instructions(tmp_path):
    _, data = compiler.compile_kernel("prior_begin", 32, "sm_80")
    (tmp_path / "kernel.cubin").write_bytes(data)
    sass = cuobjdump("--dump-sass", str(tmp_path / "kernel.cubin"))
    assert re.search(r"IMMA\.16832\.S8\.S8", sass)


def test_another_gpu_is_refused():
    run = subprocess.run(
        [sys.executable, "-m", "dlf.kernels.compile", "-o", "nowhere", "--gpu", "sm_70"], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "sm_70" in run.stderr
    assert not Path("nowhere").exists()


def test_the_interpreter_compiles_nothing(monkeypatch):
    monkeypatch.setattr(knobs.runtime, "interpret", True)
    with pytest.raises(ValueError, match="TRITON_INTERPRET"):
        compiler.compile_kernel("vq_lookup", 0, "sm_80")
