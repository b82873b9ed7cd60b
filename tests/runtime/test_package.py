"""The installed package: what `import dlf` imports, and the flags for C programs."""

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import dlf
from dlf import config
from dlf.runtime import errors
from dlf.runtime.bundles import builtin


def run(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout


def test_import_brings_neither_torch_nor_a_backend_nor_the_command_line():
    loaded = set(run("-c", "import dlf, sys; print(*{name.split('.')[0] for name in sys.modules})").split())
    assert "numpy" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "openvino", "tensorrt", "triton", "typer", "rich"}


def test_version_is_the_distributions():
    assert dlf.__version__ == metadata.version("dlf")


def test_only_its_own_extra_asks_for_onnx_runtime():
    """Its packages for the CPU and for GPUs overwrite each other's files."""
    asking = {
        requirement.partition("extra == ")[2].strip("\"' ")
        for requirement in metadata.requires("dlf")
        if re.match("onnxruntime", requirement)
    }
    assert asking == {"onnxruntime", "onnxruntime-gpu", "onnxruntime-tensorrt"}
    assert not [requirement for requirement in metadata.requires("dlf") if re.match(r"dlf\[.*onnxruntime|pycuda", requirement)]


def test_every_error_is_public():
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.DLFError)}
    assert kinds <= set(dlf.__all__)
    assert all(hasattr(dlf, name) for name in dlf.__all__)


def test_config_prints_what_is_asked_for():
    assert run("-m", "dlf.config", "--version").split() == [dlf.__version__]
    flags = run("-m", "dlf.config", "--cflags", "--libs").split()
    assert [flag[:2] for flag in flags] == ["-I", "-L", "-W", "-l"]
    include, folder, model = (Path(run("-m", "dlf.config", f"--{name}").strip()) for name in ("includedir", "libdir", "model"))
    assert (include / "dlf.h").is_file() and (folder / "pkgconfig" / "dlf.pc").is_file()
    assert model == builtin.path()


def test_config_wants_a_question():
    assert subprocess.run([sys.executable, "-m", "dlf.config"], capture_output=True).returncode == 2


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_a_c_program_builds_with_the_flags(tmp_path):
    (tmp_path / "program.c").write_text(
        "#include <dlf.h>\n#include <stdio.h>\nint main(void) { return puts(dlf_version()) < 0; }\n"
    )
    flags = run("-m", "dlf.config", "--cflags", "--libs").split()
    subprocess.run(["cc", tmp_path / "program.c", *flags, "-o", tmp_path / "program"], check=True)
    assert subprocess.run([tmp_path / "program"], check=True, capture_output=True, text=True).stdout.strip() == dlf.__version__


def test_flags_of_paths_with_spaces_are_one_word_each_to_a_shell(monkeypatch, capsys):
    monkeypatch.setattr(config, "include_path", lambda: Path("/opt/my libs/include"))
    monkeypatch.setattr(config, "library_path", lambda: Path("/opt/my libs/$dlf/libdlf.so"))
    monkeypatch.setattr("sys.argv", ["dlf.config", "--cflags", "--libs"])
    config.main()
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {capsys.readouterr().out}"], capture_output=True, text=True).stdout
    folder = "/opt/my libs/$dlf"
    assert words.splitlines() == ["-I/opt/my libs/include", f"-L{folder}", f"-Wl,-rpath,{folder}", "-ldlf"]
