"""A processor's AVX-512 is hidden from the libraries of a command and of what it starts."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dlf.benchmarks import without_avx512

_FLAGS = set(Path("/proc/cpuinfo").read_text().split())

pytestmark = [
    pytest.mark.skipif(
        platform.machine() != "x86_64" or not {"cpuid_fault", "avx512_vnni"} <= _FLAGS or without_avx512.hidden(),
        reason="needs an x86-64 processor with AVX-512 VNNI whose CPUID can be refused",
    ),
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler"),
]

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
    print(json.dumps(pool.submit(seen).result()), flush=True)
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "dlf.benchmarks.without_avx512", *command)
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


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


def test_a_handler_of_the_commands_own_gets_its_own_faults_alone() -> None:
    # machine.describe has started a process by vfork, which resets its handlers before it executes.
    result = run(sys.executable, "-X", "faulthandler", "-c", _SEEN + "import ctypes; ctypes.string_at(0)")
    assert json.loads(result.stdout)["torch"] == "AVX2"
    assert "Fatal Python error: Segmentation fault" in result.stderr
    assert result.returncode == -signal.SIGSEGV


@pytest.mark.parametrize("fault", ["import ctypes; ctypes.string_at(0)", "import os; os.kill(os.getpid(), 11); print('alive')"])
def test_a_fault_ends_a_command_without_a_handler(fault: str) -> None:
    result = run(sys.executable, "-c", f"{_SEEN}\n{fault}")
    assert result.returncode == -signal.SIGSEGV
    assert json.loads(result.stdout)["torch"] == "AVX2"


def test_constructors_of_linked_libraries_see_avx2(tmp_path: Path) -> None:
    (tmp_path / "asks.c").write_text(
        "#include <stdio.h>\n__attribute__((constructor)) static void ask(void) {"
        ' __builtin_cpu_init(); printf("%d %d\\n", !!__builtin_cpu_supports("avx512f"), !!__builtin_cpu_supports("avx2")); }\n'
    )
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "asks.c", "-o", "libasks.so"], cwd=tmp_path, check=True)
    linked = ["-Wl,--no-as-needed", "-L.", "-lasks", f"-Wl,-rpath,{tmp_path}"]
    subprocess.run(["cc", "main.c", *linked, "-o", "main"], cwd=tmp_path, check=True)
    assert run(str(tmp_path / "main")).stdout == "0 1\n"


def refused(**environment: str) -> str:
    """What the tool says where it runs nothing."""
    result = run("/bin/echo", "ran", **environment)
    assert result.returncode == 1
    assert not result.stdout
    return result.stderr


def test_nothing_is_run_where_the_library_cannot_be_loaded(tmp_path: Path) -> None:
    spaced = tmp_path / "a folder"  # the loader divides names at spaces
    assert "AVX-512 cannot be hidden; nothing was run" in refused(XDG_CACHE_HOME=str(spaced))


def test_nothing_is_run_without_a_compiler() -> None:
    assert "hiding AVX-512 needs a C compiler, and there is no cc" in refused(PATH="/nonexistent")
