"""Costs of graphs, compared with counts by hand and with PyTorch's counter."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.bundle import CHANNELS, DIM, save_stage
from helpers.export import TINY, tiny_model
from onnx import helper
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dlf.benchmarks.graph_cost import Cost, count
from dlf.export.fusion import fused
from dlf.export.stages import stages

RNG = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def one_node(path: Path, kind: str, inputs: dict[str, list], output: list, attributes: dict, **constants: np.ndarray) -> Path:
    node = helper.make_node(kind, [*inputs, *constants], ["out"], **attributes)
    save_stage(path, [node], inputs, {"out": output}, **constants)
    return path


@pytest.mark.parametrize(
    ("kind", "inputs", "output", "attributes", "constants", "expected"),
    [
        # 7 rows, each 11 sums of 5 products
        ("MatMul", {"x": ["n", 5]}, ["n", 11], {}, {"w": weights(5, 11)}, Cost(2 * 7 * 5 * 11, 55, 7 * 5 + 7 * 11)),
        (
            "MatMul",
            {"x": ["n", 3, 2, 5], "y": ["n", 3, 5, 4]},
            ["n", 3, 2, 4],
            {},
            {},
            Cost(2 * 7 * 3 * 2 * 5 * 4, 0, 7 * 3 * 38),
        ),
        ("Gemm", {"x": [5, "n"]}, ["n", 11], {"transA": 1}, {"w": weights(5, 11)}, Cost(2 * 7 * 5 * 11, 55, 7 * 5 + 7 * 11)),
        # 6 x 6 positions of 8 outputs, each a sum over 4 inputs (of 2 groups) and 3 x 3 neighbours
        (
            "Conv",
            {"x": ["n", 8, 8, 8]},
            ["n", 8, 6, 6],
            {"group": 2},
            {"w": weights(8, 4, 3, 3)},
            Cost(7 * 2 * 8 * 36 * 4 * 9, 288, 7 * (512 + 288)),
        ),
        # each of 8 x 8 positions of 3 inputs adds to 2 outputs at 3 x 3 neighbours
        (
            "ConvTranspose",
            {"x": ["n", 3, 8, 8]},
            ["n", 2, 10, 10],
            {},
            {"w": weights(3, 2, 3, 3)},
            Cost(7 * 2 * 3 * 64 * 2 * 9, 54, 7 * (192 + 200)),
        ),
        ("Einsum", {"x": ["n", 3, 5]}, ["n", 3, 2], {"equation": "nab, bc -> nac"}, {"w": weights(5, 2)}, Cost(420, 10, 7 * 21)),
        ("Relu", {"x": ["n", 3]}, ["n", 3], {}, {}, Cost(0, 0, 42)),
    ],
)
def test_one_operator(tmp_path, kind, inputs, output, attributes, constants, expected):
    path = one_node(tmp_path / "one.onnx", kind, inputs, output, attributes, **constants)
    assert count(path, {"n": 7}) == expected


@pytest.mark.parametrize(("n", "h", "w"), [(1, 1, 1), (2, 3, 4)])
def test_toy_analysis(tmp_path, n, h, w):
    """A 1x1 convolution at every 32nd pixel, and a product for each tile's 3 colours; sizes inside depend on the image's."""
    image = np.zeros((DIM,), np.float32)  # 4 numbers that no node reads are weights too
    nodes = [
        helper.make_node("AveragePool", ["image"], ["blocks"], kernel_shape=[32, 32], strides=[32, 32]),
        helper.make_node("Conv", ["blocks", "to_y"], ["y"]),
        helper.make_node("AveragePool", ["blocks"], ["tiles"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Shape", ["tiles"], ["shape"]),
        helper.make_node("Gather", ["shape", "order"], ["turned"]),
        helper.make_node("Transpose", ["tiles"], ["colours"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["colours", "turned"], ["again"]),
        helper.make_node("MatMul", ["again", "to_z"], ["z"]),
    ]
    path = tmp_path / "analysis.onnx"
    model = save_stage(
        path,
        nodes,
        {"image": ["n", 3, "256*h", "256*w"]},
        {"z": ["n", "h", "w", DIM * 32], "y": ["n", CHANNELS, "8*h", "8*w"]},
        to_y=weights(CHANNELS, 3, 1, 1),
        to_z=weights(3, DIM * 32),
        order=np.array([0, 2, 3, 1]),
        unused=image,
    )
    onnx.save(model, path, save_as_external_data=True, location="analysis.onnx.data", size_threshold=90)
    (tmp_path / "analysis.onnx.data").unlink()  # weights are not read
    tiles = n * h * w
    assert count(path, {"n": n, "h": h, "w": w}) == Cost(
        flops=2 * tiles * 64 * CHANNELS * 3 + 2 * tiles * 3 * DIM * 32,
        weights=CHANNELS * 3 + 3 * DIM * 32 + 4,
        activations=tiles * (3 * 65536 + DIM * 32 + 64 * CHANNELS),
    )


def test_bytes_are_those_of_the_precision():
    assert Cost(flops=100, weights=30, activations=12).bytes(2) == 84


def test_costs_add_up():
    assert Cost(1, 2, 3) + Cost(10, 20, 30) == Cost(11, 22, 33)


@pytest.mark.parametrize(("h", "w"), [(1, 1), (2, 1)])
def test_exported_stages_against_pytorchs_counter(tiny_bundle, h, w):
    model = tiny_model()
    for stage in stages(TINY):
        inputs = [torch.zeros(port.at(1, h, w)) for port in stage.inputs]
        # The counter knows the products that attention is made of, and not the fused kernels.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad(), fused(model):
            getattr(model, stage.name)(*inputs)
        found = count(tiny_bundle / f"{stage.name}.onnx", {"n": 1, "h": h, "w": w})
        assert found.flops == pytest.approx(counter.get_total_flops(), rel=0.01)
        assert found.activations == sum(np.prod(port.at(1, h, w)) for port in (*stage.inputs, *stage.outputs))


def test_operator_that_is_not_counted_is_refused(tmp_path):
    path = one_node(
        tmp_path / "one.onnx",
        "RNN",
        {"x": [4, "n", 3]},
        [4, 1, "n", 5],
        {"hidden_size": 5},
        w=weights(1, 5, 3),
        r=weights(1, 5, 5),
    )
    with pytest.raises(ValueError, match="RNN is not counted"):
        count(path, {"n": 1})


def test_shape_that_depends_on_the_data_is_refused(tmp_path):
    path = tmp_path / "one.onnx"
    save_stage(path, [helper.make_node("NonZero", ["x"], ["out"])], {"x": [4, 4]}, {})
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("out", onnx.TensorProto.INT64, None))
    onnx.save(model, path)
    with pytest.raises(ValueError, match="is unknown"):
        count(path, {})
