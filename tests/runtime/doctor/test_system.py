from importlib.metadata import version
from pathlib import Path

import pytest

from dlf.runtime.doctor import system


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command nvidia-smi, to be written."""
    path = tmp_path / "nvidia-smi"
    path.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return path


def test_packages_have_their_versions():
    found = system.packages()
    assert found["numpy"] == version("numpy")
    assert set(found) == set(system.PACKAGES)


def test_processor_has_a_name():
    assert system.processor().strip()


def test_gpus_are_those_of_nvidia_smi(nvidia_smi):
    nvidia_smi.write_text(
        "#!/bin/sh\n"
        'test "$1 $2" = "--query-gpu=name,compute_cap,memory.total,driver_version --format=csv,noheader" || exit 2\n'
        "echo 'NVIDIA L4, 8.9, 23034 MiB, 550.54.15'\n"
        "echo 'NVIDIA H100 80GB HBM3, 9.0, 81559 MiB, 550.54.15'\n"
    )
    assert system.gpus() == [
        system.GPU("NVIDIA L4", "8.9", "23034 MiB", "550.54.15"),
        system.GPU("NVIDIA H100 80GB HBM3", "9.0", "81559 MiB", "550.54.15"),
    ]


@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found'"])
def test_driver_without_gpus_gives_none(nvidia_smi, script):
    nvidia_smi.write_text(f"#!/bin/sh\n{script}\n")
    assert system.gpus() == []


def test_no_driver_gives_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert system.gpus() == []
