"""Emulated fp16: a CPU rounds after every node as NumPy rounds to float16, and no optimisation removes the rounding."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dlf.export.emulation import emulate, load

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
RNG = np.random.default_rng(0)


def save(path: Path, nodes: list[onnx.NodeProto], shape: list[int], **weights: NDArray[np.float16]) -> Path:
    """A graph from x to y, fp32 both, of nodes that compute in fp16 between `x.half` and `y.half`."""
    nodes = [
        helper.make_node("Cast", ["x"], ["x.half"], to=HALF),
        *nodes,
        helper.make_node("Cast", ["y.half"], ["y"], to=FLOAT),
    ]
    x, y = helper.make_tensor_value_info("x", FLOAT, shape), helper.make_tensor_value_info("y", FLOAT, None)
    graph = helper.make_graph(nodes, "fp16", [x], [y], [numpy_helper.from_array(v, k) for k, v in weights.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def emulated(path: Path, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], dict[str, float]]:
    target = path.with_name("emulated.onnx")
    emulate(path, target)
    outputs, largest = load(target, threads=1)({"x": x})
    return outputs["y"], largest


def test_every_node_rounds_as_numpy_does(tmp_path: Path) -> None:
    a, b = RNG.normal(size=(2, 500)).astype(np.float16)
    nodes = [
        helper.make_node("Add", ["x.half", "a"], ["sum"]),
        helper.make_node("Mul", ["sum", "b"], ["product"]),
        helper.make_node("Sub", ["product", "sum"], ["difference"]),
        helper.make_node("Div", ["difference", "b"], ["quotient"]),
        helper.make_node("Reshape", ["quotient", "grid"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["rows_again"]),
        helper.make_node("Identity", ["rows_again"], ["y.half"]),
    ]
    path = save(tmp_path / "chain.onnx", nodes, [500], a=a, b=b, grid=np.array([4, 125]))
    x = RNG.normal(size=500).astype(np.float32)
    actual, _ = emulated(path, x)

    half = x.astype(np.float16)
    expected = ((half + a) * b - (half + a)) / b
    assert expected.dtype == np.float16
    np.testing.assert_array_equal(actual.ravel(), expected.astype(np.float32))
    # What a runtime that fuses the nodes in fp32 would give is something else, so that this test can tell.
    x, a, b = (v.astype(np.float32) for v in (half, a, b))
    fused = (((x + a) * b - (x + a)) / b).astype(np.float16)
    assert np.mean(fused != expected) > 0.1


def test_products_are_summed_in_fp32_and_rounded_once(tmp_path: Path) -> None:
    # Multiples of 1/16 of at most 4 in size: each sum of 300 products is exact in fp32, and not in fp16.
    x = (RNG.integers(-64, 65, (20, 300)) / 16).astype(np.float32)
    w = (RNG.integers(-64, 65, (300, 30)) / 16).astype(np.float16)
    path = save(tmp_path / "matmul.onnx", [helper.make_node("MatMul", ["x.half", "w"], ["y.half"])], [20, 300], w=w)
    actual, _ = emulated(path, x)
    exact = x.astype(np.float64) @ w.astype(np.float64)
    np.testing.assert_array_equal(actual, exact.astype(np.float16).astype(np.float32))
    assert np.any(actual != exact)


@pytest.mark.parametrize("value", [1e-7, 6.1e-5, 2.9e-8, 1.00048828125, 65519.0, 65520.0, -1e6])
def test_inputs_round_to_subnormals_ties_and_infinity(tmp_path: Path, value: float) -> None:
    path = save(tmp_path / "id.onnx", [helper.make_node("Identity", ["x.half"], ["y.half"])], [1])
    with np.errstate(over="ignore"):
        expected = np.float32(np.float16(value))
    actual, largest = emulated(path, np.array([value], np.float32))
    assert actual == expected
    assert largest == {"x.half": pytest.approx(abs(value))}


def test_tells_the_largest_magnitude_before_it_overflows(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x.half", "x.half"], ["square"]), helper.make_node("Sub", ["square", "x.half"], ["y.half"])]
    path = save(tmp_path / "square.onnx", nodes, [3])
    actual, largest = emulated(path, np.array([1, -500, 3], np.float32))
    assert np.isinf(actual[1])
    assert largest["x.half"] == 500
    assert largest["square"] == 250000
