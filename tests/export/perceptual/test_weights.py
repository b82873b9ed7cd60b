"""Reading package archives: arrays are read, anything else is refused."""

import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from dlf.export.perceptual import weights
from dlf.runtime.errors import CheckpointError


def test_arrays_are_read() -> None:
    stored = {"AlexNet_0": {"Conv_0": {"kernel": np.arange(24.0).reshape(2, 3, 1, 4), "bias": np.ones(4)}}, "NetLinLayer_0": {}}
    tensors = weights._jax_convolutions(pickle.dumps(stored, protocol=3))
    assert tensors["weight_0"].shape == (4, 1, 2, 3)
    assert tensors["weight_0"][3, 0, 1, 2] == 23
    assert tensors["bias_0"].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("value", [print, np.random.default_rng, io.BytesIO])
def test_other_globals_are_refused(value: object) -> None:
    with pytest.raises(CheckpointError, match="only NumPy arrays"):
        weights.NumPyUnpickler(io.BytesIO(pickle.dumps({"a": value}, protocol=3))).load()


def test_another_archive_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    def download(command: list[str], check: bool) -> None:
        folder = command[command.index("--dest") + 1]
        with open(f"{folder}/lpips-0.1.4.whl", "wb") as file:
            file.write(b"something else")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(weights.subprocess, "run", download)
    with pytest.raises(CheckpointError, match=r"lpips==0\.1\.4 .* SHA-256"):
        weights.load("lpips_alexnet")


def test_members_of_both_kinds_of_archive() -> None:
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a/b", b"zip")
    with tarfile.open(fileobj=tarred, mode="w:gz") as tar:
        info = tarfile.TarInfo("a/b")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"tar"))
    assert weights._member(zipped.getvalue(), "a/b") == b"zip"
    assert weights._member(tarred.getvalue(), "a/b") == b"tar"


def test_pth_files_are_read_without_code() -> None:
    file = io.BytesIO()
    torch.save({"alpha": torch.ones(2)}, file)
    assert weights._pth(file.getvalue())["alpha"].tolist() == [1, 1]
    file = io.BytesIO()
    torch.save({"alpha": io.BytesIO()}, file)
    with pytest.raises(pickle.UnpicklingError):
        weights._pth(file.getvalue())
