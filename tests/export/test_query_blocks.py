"""Attention in blocks of queries is attention: compared with NumPy, in double, on both backends."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.bundle import LoneStage, save_stage
from numpy.typing import NDArray
from onnx import helper

from dlf.export.query_blocks import BLOCK, in_query_blocks
from dlf.runtime.backends.choice import open_backend

WIDTH = 24


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two attentions, the second on what the first gives."""
    path = tmp_path_factory.mktemp("blocks") / "attention.onnx"
    nodes = []
    for queries, out in (("q", "first"), ("first", "y")):
        nodes += [
            helper.make_node("Transpose", ["k"], [f"{out}.k"], perm=[0, 1, 3, 2]),
            helper.make_node("MatMul", [queries, f"{out}.k"], [f"{out}.logits"]),
            helper.make_node("Softmax", [f"{out}.logits"], [f"{out}.shares"], axis=-1),
            helper.make_node("MatMul", [f"{out}.shares", "v"], [out]),
        ]
    # The exporter's graphs have static widths inside, by shapes that are constants.
    nodes.insert(0, helper.make_node("Reshape", ["latent", "shape"], ["q"]))
    map_shape = ["n", 1, "256*t", WIDTH]
    ports = dict.fromkeys(("latent", "k", "v"), map_shape)
    model = save_stage(path, nodes, ports, {"y": map_shape}, shape=np.array([0, 1, -1, WIDTH]))
    in_query_blocks(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def attended(q: NDArray[np.float64], k: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = np.exp(q @ k.swapaxes(-1, -2))
    mixed: NDArray[np.float64] = shares / shares.sum(-1, keepdims=True) @ v
    return mixed


def test_blocks_give_what_the_whole_map_gives(graph: Path, backend: str) -> None:
    stage = open_backend(backend, 1).load(LoneStage(graph), "attention")
    rng = np.random.default_rng(0)
    for images, tiles in ((1, 1), (1, 3), (2, 2)):  # one stage, any number of blocks
        inputs = {name: rng.standard_normal((images, 1, BLOCK * tiles, WIDTH), dtype=np.float32) for name in ("latent", "k", "v")}
        q, k, v = (array.astype(float) for array in inputs.values())
        np.testing.assert_allclose(stage(inputs)["y"], attended(attended(q, k, v), k, v), atol=1e-4)


def test_no_product_of_all_positions_is_left(graph: Path) -> None:
    nodes = onnx.load(graph).graph.node
    assert [node.op_type for node in nodes].count("Loop") == 2
    assert {"MatMul", "Softmax"}.isdisjoint(node.op_type for node in nodes)
