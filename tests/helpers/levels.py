"""Levels of a pixel generator in a toy bundle, and what they give in PyTorch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from helpers.bundle import save_stage, seal
from numpy.typing import NDArray
from onnx import helper

Array = NDArray[np.float32]

GROUPS, EPSILON = 8, 1e-6
LATENT = 3  # channels of the toy bundle's


@dataclass(frozen=True)
class Step:
    """A step as the manifest lists it; the norm's gamma and beta are None where there is none."""

    kind: str
    weight: Array
    bias: Array
    gamma: Array | None = None
    beta: Array | None = None
    groups: int = GROUPS


def step(rng: np.random.Generator, kind: str, inputs: int, outputs: int) -> Step:
    """A step with random weights that keep the map's variance about 1, and most of the image within -1..1."""
    side = 1 if kind == "shortcut" else 3
    weight = rng.standard_normal((outputs, inputs, side, side), dtype=np.float32) / np.float32(np.sqrt(inputs * side * side))
    if kind == "output":
        weight *= np.float32(0.5)
    bias = rng.standard_normal(outputs, dtype=np.float32) * np.float32(0.2)
    if kind in ("shortcut", "upsample"):
        return Step(kind, weight, bias)
    return Step(kind, weight, bias, *(rng.standard_normal((2, inputs), dtype=np.float32) + np.float32([[1], [0]])))


def steps(seed: int, base: int = 96, width: int = 64) -> list[Step]:
    """Levels with every kind of step."""
    kinds = [
        *(("upsample", base, base), ("first", base, width), ("shortcut", base, width), ("second", width, width)),
        *(("upsample", width, width), ("first", width, 32), ("second", 32, width)),
        *(("upsample", width, width), ("upsample", width, width), ("output", width, 3)),
    ]
    rng = np.random.default_rng(seed)
    return [step(rng, *kind) for kind in kinds]


def reference(found: list[Step], base: Array) -> NDArray[np.float64]:
    """The image (3, 16h, 16w) of a base (channels, h, w), in double."""
    x, h = torch.from_numpy(base).double()[None], None
    for each in found:
        weight, bias = torch.from_numpy(each.weight).double(), torch.from_numpy(each.bias).double()
        source = h if each.kind == "second" else x
        assert source is not None
        if each.gamma is not None and each.beta is not None:
            gamma, beta = torch.from_numpy(each.gamma).double(), torch.from_numpy(each.beta).double()
            source = F.silu(F.group_norm(source, each.groups, gamma, beta, EPSILON))
        if each.kind == "upsample":
            source = F.interpolate(source, scale_factor=2.0, mode="nearest")
        out = F.conv2d(source, weight, bias, padding=weight.shape[-1] // 2)
        if each.kind == "first":
            h = out
        else:
            x = x + out if each.kind == "second" else out
    image: NDArray[np.float64] = x[0].clamp(-1, 1).numpy()
    return image


class Weights:
    """A file of weights in the making."""

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, values: NDArray[Any], scale: Array | None = None) -> dict[str, Any]:
        """Append a tensor, and return its entry."""
        entry = {"name": "t", "dtype": str(values.dtype), "shape": list(values.shape), "offset": len(self.data)}
        self.data += values.tobytes()
        return entry if scale is None else {**entry, "scale": self.add(scale)}


def listed(found: list[Step], weights: Weights) -> list[dict[str, Any]]:
    """The steps' entries, all in float32."""
    entries = []
    for each in found:
        entry: dict[str, Any] = {"kind": each.kind, "weight": weights.add(each.weight), "bias": weights.add(each.bias)}
        if each.gamma is not None and each.beta is not None:
            entry |= {"groups": each.groups, "epsilon": EPSILON}
            entry |= {"gamma": weights.add(each.gamma), "beta": weights.add(each.beta)}
        entries.append(entry)
    return entries


def add_levels(bundle: Path, entries: list[dict[str, Any]], weights: Weights, seed: int = 0) -> None:
    """Give a toy bundle the levels, and a base: a 1x1 convolution of the latent."""
    channels = entries[0]["weight"]["shape"][1]
    to_base = np.random.default_rng(seed).standard_normal((channels, LATENT, 1, 1)).astype(np.float32)
    latent, base = (["n", width, "16*h", "16*w"] for width in (LATENT, channels))
    convolution = helper.make_node("Conv", ["latent", "to_base"], ["base"])
    save_stage(bundle / "generator_base.onnx", [convolution], {"latent": latent}, {"base": base}, to_base=to_base)
    (bundle / "levels.data").write_bytes(weights.data)
    relist(bundle, entries)


def relist(bundle: Path, entries: Any, **changes: Any) -> None:
    """Write a bundle's manifest with other entries of the levels; `changes` replace the fields beside them."""
    seal(bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    levels = {"stage": "generator_base", "file": "levels.data", "steps": entries, **changes}
    manifest["stages"]["generator"]["levels"] = levels
    (bundle / "manifest.json").write_text(json.dumps(manifest))
