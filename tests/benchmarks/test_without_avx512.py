"""A processor's AVX-512 is hidden from the libraries of a command and of what it starts."""

import json
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_FLAGS = set(Path("/proc/cpuinfo").read_text().split())

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not {"cpuid_fault", "avx512_vnni"} <= _FLAGS,
    reason="needs an x86-64 processor with AVX-512 VNNI whose CPUID can be refused",
)

# What each library takes this processor for, asked in a new thread.
_SEEN = """
import json
from concurrent.futures import ThreadPoolExecutor

def seen():
    import openvino
    import torch
    from dlf.benchmarks import machine
    from dlf.runtime.bundles import builtin
    from dlf.runtime.bundles.bundle import Bundle
    return {
        "torch": torch.backends.cpu.get_cpu_capability(),
        "openvino": openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
        "libdlf": Bundle(builtin.path()).entropy.isa,
        "described": machine.describe()["vectors"],
    }

with ThreadPoolExecutor(1) as pool:
    print(json.dumps(pool.submit(seen).result()))
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "dlf.benchmarks.without_avx512", *command)
    return subprocess.run(command, capture_output=True, text=True)


def test_libraries_see_avx2_and_the_exit_code_is_the_commands() -> None:
    result = run("sh", "-c", '"$0" -c "$1"; exit 3', sys.executable, _SEEN)
    assert result.returncode == 3, result.stderr
    found = json.loads(result.stdout)
    assert found["torch"] == "AVX2"
    assert "INT8" in found["openvino"] and not {"BF16", "FP16"} & set(found["openvino"])  # it has these with AMX and AVX-512
    assert found["libdlf"] == "avx2"
    assert found["described"] == "AVX2; AVX-512 hidden"


def test_without_it_the_same_libraries_see_avx512() -> None:
    found = json.loads(subprocess.run([sys.executable, "-c", _SEEN], capture_output=True, text=True, check=True).stdout)
    assert found["torch"] == "AVX512"
    assert found["libdlf"] == "avx512"
    assert found["described"] == "AVX-512 VNNI"


def test_a_fault_of_the_command_still_ends_it() -> None:
    assert run(sys.executable, "-c", "import ctypes; ctypes.string_at(0)").returncode == 128 + signal.SIGSEGV
