"""Checkpoints for tests (the synthetic ones of tests/reference, and small models with random weights), and graphs in int8."""

import importlib.util
from collections.abc import Collection
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dlf.export.model import DLF, Config
from dlf.runtime.backends import Arrays

REFERENCE = Path(__file__).parents[1] / "reference"

# The smallest model with every part: all block kinds, one interactive transform, a change in the generator's width, and widths
# that libdlf's kernels of levels take.
TINY = Config(
    vit_width=64,
    vit_layers=2,
    codebook_size=100,
    codebook_dim=8,
    detail_width=64,
    detail_channels=8,
    encoder_insertions=(0,),
    decoder_insertions=(1,),
    insertion_depth=1,
    adaptor_width=64,
    vqgan_codebook_size=16,
    vqgan_codebook_dim=8,
    vqgan_width=32,
    vqgan_multipliers=(1, 1, 1, 2, 2),
    vqgan_groups=4,
)


@cache
def synthetic_checkpoint() -> ModuleType:
    """tests/reference/synthetic_checkpoint.py as a module."""
    spec = importlib.util.spec_from_file_location("synthetic_checkpoint", REFERENCE / "synthetic_checkpoint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_synthetic(path: Path, config: str, seed: int) -> Path:
    """A Lightning-style checkpoint of a manifest's layout, training tensors included."""
    tensors = {name: torch.from_numpy(a) for name, a, _ in synthetic_checkpoint().tensors(config, seed)}
    torch.save({"state_dict": tensors}, path)
    return path


def synthetic_state(model: DLF, seed: int) -> dict[str, torch.Tensor]:
    """Weights for any model, drawn as the synthetic checkpoints draw theirs."""
    draw = synthetic_checkpoint().draw
    return {
        name: torch.from_numpy(np.asarray(draw(name, tuple(t.shape), seed), np.float32)) for name, t in model.state_dict().items()
    }


def tiny_model(config: Config = TINY) -> DLF:
    model = DLF(config)
    model.load_state_dict(synthetic_state(model, seed=0))
    return model.eval().requires_grad_(False)


def golden(name: str) -> dict[str, NDArray[np.generic]]:
    """A golden file: a committed one, or one of those too large to commit where they are at hand."""
    for folder in (REFERENCE, REFERENCE.parents[3] / "shared" / "reference"):
        path = folder / f"golden_{name}.npz"
        if path.is_file():
            with np.load(path) as file:
                return dict(file)
    pytest.skip(f"golden_{name}.npz is not committed; it belongs into ../shared/reference")


def in_int8(source: Path, target: Path, inputs: Arrays, keep: Collection[str] = ()) -> Path:
    """Write the int8 form of a graph to `target`, calibrated on its inputs; the nodes in `keep` stay in float."""
    from dlf.export import int8  # which needs ONNX Runtime

    calibrated, _ = int8._calibrate(source, [inputs])
    int8._convert(source, target, keep, calibrated)
    return target
