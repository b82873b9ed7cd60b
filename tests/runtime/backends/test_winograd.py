"""The generator's upper levels by Winograd's method, compared with PyTorch's convolutions in float64 and with OpenVINO's."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from helpers.bundle import LoneStage
from helpers.export import in_int8
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("openvino")

from dlf.export import int8
from dlf.runtime.backends import openvino as backend
from dlf.runtime.backends import winograd
from dlf.runtime.backends.winograd import FIRST, OUTPUT, SECOND, SHORTCUT, UPSAMPLE, Norm, Step

GROUPS, EPSILON = 8, 1e-6
CLOSE = 1e-5  # of the largest value; float32 and F(4x4, 3x3) leave some 4e-6

pytestmark = pytest.mark.skipif(not winograd.available(), reason="libdlf has no such kernels for this processor")


def step(rng: np.random.Generator, kind: int, inputs: int, outputs: int) -> Step:
    """A step with random weights that keep the map's variance about 1."""
    shape = (outputs, inputs) if kind == SHORTCUT else (outputs, inputs, 3, 3)
    weight = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
    norm = Norm(GROUPS, EPSILON, *(rng.standard_normal((2, inputs), dtype=np.float32) + np.float32([[1], [0]])))
    bias = rng.standard_normal(outputs, dtype=np.float32)
    return Step(kind, weight, bias, None if kind in (SHORTCUT, UPSAMPLE) else norm)


def reference(steps: list[Step], x: np.ndarray) -> np.ndarray:
    """The steps in PyTorch, in double."""
    x, h = torch.from_numpy(x).double()[None], None
    for each in steps:
        weight, bias = torch.from_numpy(each.weight).double(), torch.from_numpy(each.bias).double()

        def conv(x: torch.Tensor, each: Step = each, weight: torch.Tensor = weight, bias: torch.Tensor = bias) -> torch.Tensor:
            if each.norm:
                gamma, beta = (torch.from_numpy(values).double() for values in (each.norm.gamma, each.norm.beta))
                x = F.silu(F.group_norm(x, each.norm.groups, gamma, beta, each.norm.epsilon))
            return F.conv2d(x, weight, bias, padding=1)

        if each.kind == FIRST:
            h = conv(x)
        elif each.kind == SECOND:
            x = x + conv(h)
        elif each.kind == SHORTCUT:
            x = F.conv2d(x, weight[:, :, None, None], bias)
        elif each.kind == UPSAMPLE:
            x = conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        else:
            x = conv(x)
    return x[0].numpy()


@pytest.mark.parametrize(("height", "width"), [(4, 4), (16, 32), (12, 100), (8, 196)])  # 96 columns are an item of work
@pytest.mark.parametrize("threads", [1, 3])
def test_equals_the_direct_method(height: int, width: int, threads: int):
    rng = np.random.default_rng(height + width)
    kinds = [(FIRST, 96, 64), (SHORTCUT, 96, 64), (SECOND, 64, 64), (UPSAMPLE, 64, 64), (FIRST, 64, 64), (SECOND, 64, 64)]
    steps = [step(rng, *kind) for kind in [*kinds, (OUTPUT, 64, 3)]]
    x = rng.standard_normal((96, height, width), dtype=np.float32)
    expected = reference(steps, x)
    actual = winograd.run(steps, x, threads)
    assert actual.shape == (3, 2 * height, 2 * width)
    assert np.abs(actual - expected).max() <= CLOSE * np.abs(expected).max()


def test_norm_of_values_far_from_zero():
    rng = np.random.default_rng(1)
    steps = [step(rng, OUTPUT, 32, 3)]
    x = rng.standard_normal((32, 32, 32), dtype=np.float32) + np.float32(100)
    expected = reference(steps, x)
    assert np.abs(winograd.run(steps, x, 2) - expected).max() <= 10 * CLOSE * np.abs(expected).max()


def test_large_values_do_not_overflow_silu():
    x = np.zeros((32, 4, 4), np.float32)
    x[0, 0, 0] = 1
    norm = Norm(1, EPSILON, np.full(32, 1e4, np.float32), np.zeros(32, np.float32))
    steps = [Step(OUTPUT, np.ones((3, 32, 3, 3), np.float32), np.zeros(3, np.float32), norm)]
    expected = reference(steps, x)
    assert np.isfinite(expected).all()
    assert np.abs(winograd.run(steps, x, 1) - expected).max() <= 1e-4 * np.abs(expected).max()


def graph(folder: Path, width: int, kernel: np.ndarray | None = None) -> Path:
    """An upsampling, a residual block and an output convolution as the exporter writes them."""
    rng = np.random.default_rng(0)
    small = rng.standard_normal((width, width, 3, 3)).astype(np.float32)
    constants = {
        "kernel": doubled(small) if kernel is None else kernel,
        "bias": rng.standard_normal(width).astype(np.float32),
        "grouped": np.array([0, GROUPS, -1], np.int64),
        "ones": np.ones(GROUPS, np.float32),
        "zeros": np.zeros(GROUPS, np.float32),
    }
    make = helper.make_node
    nodes = [make("ConvTranspose", ["x", "kernel", "bias"], ["up"], "up", strides=[2, 2], pads=[1, 1, 1, 1])]

    def activated(x: str, y: str, outputs: int) -> None:
        """GroupNorm, SiLU and a 3x3 convolution."""
        names = [f"{y}.{part}" for part in ("gamma", "beta", "weight", "bias")]
        shapes = ((width, 1, 1), (width, 1, 1), (outputs, width, 3, 3), (outputs,))
        constants.update({name: rng.standard_normal(shape).astype(np.float32) for name, shape in zip(names, shapes, strict=True)})
        gamma, beta, weight, bias = names
        nodes.extend(
            [
                make("Reshape", [x, "grouped"], [f"{y}.groups"]),
                make("InstanceNormalization", [f"{y}.groups", "ones", "zeros"], [f"{y}.normed"], epsilon=EPSILON),
                make("Shape", [x], [f"{y}.shape"]),
                make("Reshape", [f"{y}.normed", f"{y}.shape"], [f"{y}.back"]),
                make("Mul", [f"{y}.back", gamma], [f"{y}.scaled"]),
                make("Add", [f"{y}.scaled", beta], [f"{y}.shifted"]),
                make("Sigmoid", [f"{y}.shifted"], [f"{y}.sigmoid"]),
                make("Mul", [f"{y}.shifted", f"{y}.sigmoid"], [f"{y}.silu"]),
                make("Conv", [f"{y}.silu", weight, bias], [y], y, pads=[1, 1, 1, 1]),
            ]
        )

    activated("up", "first", width)
    activated("first", "second", width)
    nodes.append(make("Add", ["up", "second"], ["sum"]))
    activated("sum", "image", 3)
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, ["n", width, "4*h", "4*w"])]
    outputs = [value("image", TensorProto.FLOAT, ["n", 3, "8*h", "8*w"])]
    initializers = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    path = folder / "generator.onnx"
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, initializers), opset_imports=[helper.make_opsetid("", 18)]
    )
    model.ir_version = 9
    onnx.save(model, path)
    return path


def doubled(kernel: np.ndarray) -> np.ndarray:
    """A 3x3 kernel after doubling, as one of 4x4."""
    return sum(np.pad(kernel, ((0, 0), (0, 0), (a, 1 - a), (b, 1 - b))) for a in (0, 1) for b in (0, 1))


def converted(path: Path, x: np.ndarray) -> Path:
    """The graph as the exporter makes it in int8, all but its last convolution."""
    target = in_int8(path, path.with_name("int8.onnx"), {"x": x})
    kinds = Counter(node.op_type for node in onnx.load(target).graph.node)
    assert (kinds["QuantizeLinear"], kinds["DequantizeLinear"]) == (3, 6)
    return target


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the maps that went through libdlf."""
    seen: list[tuple[int, ...]] = []
    run = winograd.run
    monkeypatch.setattr(winograd, "run", lambda steps, x, threads: (seen.append(x.shape), run(steps, x, threads))[1])
    return seen


def by_openvino(path: Path, x: np.ndarray) -> np.ndarray:
    """The graph as OpenVINO itself computes it."""
    core = backend.openvino.Core()
    return core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])["image"]


def test_takes_the_place_of_a_graphs_end(tmp_path: Path, maps: list[tuple[int, ...]]):
    path, x = graph(tmp_path, 32), np.random.default_rng(2).standard_normal((2, 32, 8, 12)).astype(np.float32)
    image = backend.open_backend(2).load(LoneStage(path), "")({"x": x})["image"]
    expected = by_openvino(path, x)
    assert maps == [(32, 8, 12)] * 2
    assert np.abs(image - expected).max() <= CLOSE * np.abs(expected).max()


def test_takes_the_place_of_an_int8_graphs_end(tmp_path: Path, maps: list[tuple[int, ...]]):
    path, x = graph(tmp_path, 32), np.random.default_rng(2).standard_normal((1, 32, 8, 12)).astype(np.float32)
    quantised = converted(path, x)
    image, exact = backend.open_backend(2).load(LoneStage(quantised), "")({"x": x})["image"], by_openvino(path, x)
    assert maps == [(32, 8, 12)]
    error, int8_error = (np.linalg.norm(each - exact) / np.linalg.norm(exact) for each in (image, by_openvino(quantised, x)))
    assert 1e-3 < error < 0.03  # the weights' alone
    assert error < int8_error


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1.0, 100.0]))
@settings(max_examples=30, deadline=None)
def test_kernel_that_was_doubled_and_rounded_to_int8_is_found_again(seed: int, size: float):
    kernel = np.random.default_rng(seed).standard_normal((4, 5, 3, 3)) * size
    values, scale = int8.quantise(doubled(kernel).astype(np.float32), axis=1)
    found, error = winograd._undoubled(int8.dequantise(values, scale, axis=1))
    assert error <= 2.5 * scale.max() / 2
    # A row of the inverse adds up to at most 2 along each axis.
    assert np.abs(found - kernel).max() <= 2 * 2 * scale.max() / 2 * 1.001


def test_leaves_another_transposed_convolution_and_what_is_below(tmp_path: Path, maps: list[tuple[int, ...]]):
    rng = np.random.default_rng(3)
    path = graph(tmp_path, 32, rng.standard_normal((32, 32, 4, 4)).astype(np.float32))
    x = rng.standard_normal((1, 32, 8, 8)).astype(np.float32)
    expected = by_openvino(path, x)
    for file, close in ((path, CLOSE), (converted(path, x), 0.1)):
        image = backend.open_backend(2).load(LoneStage(file), "")({"x": x})["image"]
        assert np.abs(image - expected).max() <= close * np.abs(expected).max()
    assert maps == [(32, 16, 16)] * 2


def test_leaves_another_width(tmp_path: Path, maps: list[tuple[int, ...]]):
    path, x = graph(tmp_path, 24), np.random.default_rng(2).standard_normal((1, 24, 8, 8)).astype(np.float32)
    for file in (path, converted(path, x)):
        image, expected = backend.open_backend(2).load(LoneStage(file), "")({"x": x})["image"], by_openvino(file, x)
        np.testing.assert_allclose(image, expected, rtol=1e-4, atol=1e-4)
    assert maps == []
