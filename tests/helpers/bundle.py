"""A toy bundle: hand-made ONNX stages of a few nodes around a random entropy model.

Its picture can be computed without it: every 32x32 block becomes its mean (as far as quantisation lets it), and every tile is
tinted by its tokens. `toy_picture` does so in NumPy.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from helpers.entropy import random_tables
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from dlf.runtime.bundles.bundle import file_sha256

CHANNELS, DIM = 8, 4
GAIN = 32  # of y over the block's mean colour; q is at most 1, so that the picture is within 1/64 of the range
TINT = 0.25


def make_toy_bundle(folder: Path, seed: int = 0, entries: int = 64) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir()
    tables = random_tables(rng, CHANNELS, entries=entries, dim=DIM)
    tables = replace(
        tables,
        q=rng.uniform(0.5, 1, tables.q.shape).astype(np.float32),
        thresholds=np.sort(np.append(tables.thresholds[1:], -32768)).astype(np.int16),  # every symbol is coded
        indexes=np.maximum(tables.indexes, 0),
    )
    (folder / "entropy.bin").write_bytes(tables.to_bytes())
    to_z = rng.normal(size=(3, DIM * 32)).astype(np.float32)
    np.save(folder / "to_z.npy", to_z)
    image, maps = ["n", 3, "256*h", "256*w"], ["n", None, "16*h", "16*w"]
    z, y = ["n", "h", "w", DIM, 32], ["n", CHANNELS, "8*h", "8*w"]
    analysis = save_stage(
        folder / "analysis.onnx",
        [
            _node("AveragePool", ["image"], "blocks", kernel_shape=[32, 32], strides=[32, 32]),
            _node("Conv", ["blocks", "to_y"], "y"),
            _node("AveragePool", ["blocks"], "tiles", kernel_shape=[8, 8], strides=[8, 8]),
            _node("Transpose", ["tiles"], "colours", perm=[0, 2, 3, 1]),
            _node("MatMul", ["colours", "to_z"], "flat"),
            _node("Reshape", ["flat", "z_shape"], "z"),
        ],
        {"image": image},
        {"z": z, "y": y},
        to_y=GAIN * np.eye(CHANNELS, 3, dtype=np.float32)[:, :, None, None],
        to_z=to_z,
        z_shape=np.array([0, 0, 0, DIM, 32]),
    )
    onnx.save(analysis, folder / "analysis.onnx", save_as_external_data=True, location="analysis.onnx.data", size_threshold=90)
    save_stage(
        folder / "synthesis.onnx",
        [
            _node("ReduceMean", ["z_hat", "last"], "tiles", keepdims=0),
            _node("Transpose", ["tiles"], "tile_map", perm=[0, 3, 1, 2]),
            _enlarge("tile_map", "x16", "semantic"),
            _node("Conv", ["y_hat", "from_y"], "colours"),
            _enlarge("colours", "x2", "detail"),
        ],
        {"z_hat": z, "y_hat": y},
        {"semantic": maps, "detail": maps},
        last=np.array([4]),
        from_y=np.eye(3, CHANNELS, dtype=np.float32)[:, :, None, None] / GAIN,
        x16=_scales(16),
        x2=_scales(2),
    )
    save_stage(
        folder / "adaptor.onnx",
        [_node("Conv", ["semantic", "tint"], "tinted"), _node("Add", ["tinted", "detail"], "latent")],
        {"semantic": maps, "detail": maps},
        {"latent": maps},
        tint=TINT * np.eye(3, DIM, dtype=np.float32)[:, :, None, None],
    )
    save_stage(
        folder / "generator.onnx",
        [_enlarge("latent", "x16", "large"), _node("Clip", ["large", "low", "high"], "image")],
        {"latent": maps},
        {"image": image},
        x16=_scales(16),
        low=np.float32(-1),
        high=np.float32(1),
    )
    seal(folder)
    return folder


def toy_tokens(folder: Path, batch: NDArray[np.float32], codebook: NDArray[np.float32]) -> NDArray[np.int64]:
    """The tokens (tiles, 32) of a padded image (3, H, W) in -1..1."""
    tiles = _means(batch, 256).transpose(1, 2, 0).reshape(-1, 3)
    z = (tiles @ np.load(folder / "to_z.npy")).reshape(-1, DIM, 32)
    return np.argmax(np.einsum("kd,tdl->tlk", codebook, z / np.linalg.norm(z, axis=1, keepdims=True)), axis=-1)


def toy_picture(
    folder: Path, batch: NDArray[np.float32], codebook: NDArray[np.float32], detail: bool = True
) -> NDArray[np.float32]:
    """The decoded picture (H, W, 3) of a padded image (3, H, W) in -1..1, before the detail latent is quantised, or without."""
    tokens = toy_tokens(folder, batch, codebook)
    tints = codebook[tokens].mean(axis=1)[:, :3].T.reshape(3, batch.shape[1] // 256, -1)
    picture = detail * _means(batch, 32).repeat(32, 1).repeat(32, 2) + TINT * tints.repeat(256, 1).repeat(256, 2)
    return np.clip(picture, -1, 1).transpose(1, 2, 0)


def save_stage(
    path: Path,
    nodes: Sequence[NodeProto],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    **constants: NDArray[Any] | np.float32,
) -> onnx.ModelProto:
    ports = [
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ports.items()]
        for ports in (inputs, outputs)
    ]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, *ports, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return model


def seal(folder: Path, **changes: object) -> None:
    """(Re)write the manifest of the files that are there; `changes` replace its fields."""
    files = {path.name: path for path in folder.iterdir() if path.name != "manifest.json"}
    manifest = {
        "format": "dlf-bundle",
        "format_version": 1,
        "model": {"name": "toy", "config": {}},
        "fingerprint": file_sha256(folder / "entropy.bin")[:4],
        "precision": "fp32",
        "stages": {path.stem: _described(path) for name, path in files.items() if name.endswith(".onnx")},
        "files": {name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for name, path in files.items()},
    }
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def labelled(bundle: Path, target: Path, precision: str) -> None:
    """A copy of a bundle that claims another precision."""
    shutil.copytree(bundle, target)
    manifest = json.loads((target / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps({**manifest, "precision": precision}))


def rated(bundle: Path, bits_per_pixel: object) -> None:
    """Tell a model's rate in a bundle's manifest."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["model"]["bits_per_pixel"] = bits_per_pixel
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def _described(path: Path) -> dict[str, object]:
    """What a manifest says of a stage; a file that is no ONNX has no inputs."""
    try:
        ports = list(onnx.load(path, load_external_data=False).graph.input)
    except DecodeError:
        ports = []
    shapes = {port.name: [side.dim_param or side.dim_value for side in port.type.tensor_type.shape.dim] for port in ports}
    inputs = [{"name": name, "shape": shape} for name, shape in shapes.items()]
    return {"file": path.name, "precision": "fp32", "inputs": inputs}


def retype(folder: Path, stage: str, port: str, dtype: int) -> None:
    """Make a stage take or give `port` in another type, which is a member of onnx.TensorProto, and compute as before."""
    model = onnx.load(folder / f"{stage}.onnx")
    graph = model.graph
    (info,) = [info for info in (*graph.input, *graph.output) if info.name == port]
    info.type.tensor_type.elem_type = dtype
    is_input = any(info.name == port for info in graph.input)
    for node in graph.node:
        names = node.input if is_input else node.output
        names[:] = [f"{name}_float" if name == port else name for name in names]
    if is_input:
        graph.node.insert(0, helper.make_node("Cast", [port], [f"{port}_float"], to=onnx.TensorProto.FLOAT))
    else:
        graph.node.append(helper.make_node("Cast", [f"{port}_float"], [port], to=dtype))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / f"{stage}.onnx")
    (folder / f"{stage}.onnx.data").unlink(missing_ok=True)  # onnx.save has put it all into one file
    seal(folder)


PORTS = [  # of all stages
    ("analysis", "image"),
    ("analysis", "z"),
    ("analysis", "y"),
    ("synthesis", "z_hat"),
    ("synthesis", "y_hat"),
    ("synthesis", "semantic"),
    ("synthesis", "detail"),
    ("adaptor", "semantic"),
    ("adaptor", "detail"),
    ("adaptor", "latent"),
    ("generator", "latent"),
    ("generator", "image"),
]


@dataclass(frozen=True)
class LoneStage:
    """An ONNX file that is in no bundle, for a backend to load under any name."""

    file: Path

    def stage(self, name: str) -> Path:
        return self.file

    def stage_digest(self, name: str) -> str:
        return "".join(file_sha256(path) for path in sorted(self.file.parent.glob(f"{self.file.name}*")))


def link_files(bundle: Path, folder: Path) -> Path:
    """A bundle of links to copies of a bundle's files that have other names, below `folder`."""
    linked, blobs = folder / "linked", folder / "blobs"
    linked.mkdir()
    blobs.mkdir()
    for number, path in enumerate(sorted(bundle.iterdir())):
        (blobs / f"blob-{number}").write_bytes(path.read_bytes())
        (linked / path.name).symlink_to(f"../blobs/blob-{number}")
    return linked


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs, [output], name=output, **attributes)


def _enlarge(source: str, scales: str, output: str) -> NodeProto:
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return _node("Resize", [source, "", scales], output, **nearest)


def _scales(factor: int) -> NDArray[np.float32]:
    return np.array([1, 1, factor, factor], np.float32)


def _means(batch: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    channels, height, width = batch.shape
    return batch.reshape(channels, height // side, side, width // side, side).mean(axis=(2, 4))
