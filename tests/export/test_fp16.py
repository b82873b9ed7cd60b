"""fp16 graphs: which node computes in which type, what is stored, and that CPU backends run them."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import libraries
from helpers.bundle import LoneStage, save_stage
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dlf.export.emulation import emulate, load
from dlf.export.fp16 import LAYERS, MOVEMENT, convert, element_types, typed_inputs
from dlf.export.stages import HALVED_FROM, _halve_weights
from dlf.runtime.backends import Arrays
from dlf.runtime.backends.choice import open_backend

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
STAGES = ("analysis", "synthesis", "adaptor", "generator")
FP32_ALWAYS = {"LayerNormalization", "InstanceNormalization", "Softmax", "Erf", "Sigmoid", "Tanh"}


@pytest.fixture(scope="module")
def converted(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stages of the smallest model in fp16."""
    folder = tmp_path_factory.mktemp("fp16")
    for name in STAGES:
        convert(tiny_bundle / f"{name}.onnx", folder / f"{name}.onnx", ())
    return folder


def stage_inputs(path: Path) -> Arrays:
    sizes = {"n": 1, "h": 1, "w": 2, **{f"{k}*{s}": k * n for k in (8, 16, 256) for s, n in (("h", 1), ("w", 2))}}
    rng = np.random.default_rng(1)
    return {
        entry.name: rng.normal(0, 0.3, [d.dim_value or sizes[d.dim_param] for d in entry.type.tensor_type.shape.dim]).astype(
            np.float32
        )
        for entry in onnx.load(path, load_external_data=False).graph.input
    }


def run(path: Path, inputs: Arrays, backend: str = "onnxruntime") -> Arrays:
    return open_backend(backend, threads=1).load(LoneStage(path), "")(inputs)


@pytest.mark.parametrize("name", STAGES)
def test_every_node_computes_in_the_type_meant_for_it(converted: Path, name: str) -> None:
    model = onnx.load(converted / f"{name}.onnx", load_external_data=False)
    types = element_types(model)
    counts = Counter((node.op_type, types[node.output[0]]) for node in model.graph.node)
    assert all(types[entry.name] == FLOAT for entry in (*model.graph.input, *model.graph.output))
    assert {kind for op, kind in counts if op in LAYERS} == {HALF}
    assert {kind for op, kind in counts if op in FP32_ALWAYS} == {FLOAT}
    for node in model.graph.node:
        if types[node.output[0]] in (HALF, FLOAT) and node.op_type != "Cast":  # strongly typed: nothing is converted in passing
            assert {types[node.input[i]] for i in typed_inputs(node, 18)} == {types[node.output[0]]}


@pytest.mark.parametrize("name", ["analysis", "synthesis", "adaptor"])
def test_what_layer_norm_reads_never_was_fp16(converted: Path, name: str) -> None:
    """The residual stream: each LayerNorm between two blocks reads a sum that was made in fp32."""
    model = onnx.load(converted / f"{name}.onnx", load_external_data=False)
    producers = {output: node for node in model.graph.node for output in node.output}
    sums = 0
    for norm in (node for node in model.graph.node if node.op_type == "LayerNormalization"):
        source = producers.get(norm.input[0])
        while source is not None and source.op_type in MOVEMENT:
            source = producers.get(source.input[0])
        if source is not None and source.op_type == "Add" and all(i in producers for i in source.input):
            sums += 1
            assert element_types(model)[source.output[0]] == FLOAT
    assert sums >= 2


def test_weights_are_stored_once_and_in_fp16(tiny_bundle: Path, converted: Path) -> None:
    for name in STAGES:
        before = onnx.load(tiny_bundle / f"{name}.onnx")
        after = onnx.load(converted / f"{name}.onnx")
        weights = {weight.name: numpy_helper.to_array(weight) for weight in before.graph.initializer}
        in_layers = {i for node in before.graph.node if node.op_type in LAYERS for i in node.input if i in weights}
        stored = {weight.name: numpy_helper.to_array(weight) for weight in after.graph.initializer}
        assert len(stored) == len(weights)
        for weight in in_layers:
            assert weight not in stored
            np.testing.assert_array_equal(stored[f"{weight}.half"], weights[weight].astype(np.float16))
        saved = sum(weights[weight].nbytes for weight in in_layers) // 2
        assert sum(values.nbytes for values in stored.values()) <= sum(values.nbytes for values in weights.values()) - saved


@pytest.mark.parametrize("name", STAGES)
def test_cpu_backends_and_the_emulation_agree_with_fp32(tiny_bundle: Path, converted: Path, backend: str, name: str) -> None:
    path = converted / f"{name}.onnx"
    inputs = stage_inputs(path)
    expected = run(tiny_bundle / f"{name}.onnx", inputs)
    emulate(path, converted / f"{name}.emulated.onnx")
    emulated, largest = load(converted / f"{name}.emulated.onnx", threads=1)(inputs)
    assert len(largest) > 20
    for found in (run(path, inputs, backend), emulated):
        for output, values in expected.items():
            error = np.sqrt(np.mean((found[output] - values) ** 2) / np.mean(values**2))
            assert 0 < error < 0.01


def test_with_everything_kept_it_is_the_fp32_graph(tiny_bundle: Path, tmp_path: Path) -> None:
    source, target = tiny_bundle / "adaptor.onnx", tmp_path / "adaptor.onnx"
    model = onnx.load(source, load_external_data=False)
    convert(source, target, {node.name for node in model.graph.node})
    assert HALF not in element_types(onnx.load(target, load_external_data=False)).values()
    inputs = stage_inputs(source)
    for name, values in run(source, inputs).items():
        np.testing.assert_array_equal(run(target, inputs)[name], values)


def two_layers(path: Path, weights: NDArray[np.float32]) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "first"),
        helper.make_node("LeakyRelu", ["h"], ["a"], "activation", alpha=0.1),
        helper.make_node("MatMul", ["a", "w"], ["y"], "second"),
    ]
    save_stage(path, nodes, {"x": ["n", 40]}, {"y": ["n", 40]}, w=weights)
    return path


def test_a_kept_layer_is_fp32_while_its_neighbour_is_fp16(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(2, 40, 40)).astype(np.float32)
    source, target, emulated = (tmp_path / f"{name}.onnx" for name in ("source", "target", "emulated"))
    convert(two_layers(source, weights), target, {"first"})
    types = element_types(onnx.load(target))
    assert (types["h"], types["a"], types["y.half"], types["y"]) == (FLOAT, FLOAT, HALF, FLOAT)
    emulate(target, emulated)
    found, _ = load(emulated, threads=1)({"x": x})
    hidden = x.astype(np.float64) @ weights.astype(np.float16)  # the one weight of both is stored in fp16
    hidden = np.where(hidden < 0, 0.1 * hidden, hidden).astype(np.float16).astype(np.float64)
    np.testing.assert_allclose(found["y"], (hidden @ weights.astype(np.float16)).astype(np.float16), rtol=2**-10, atol=1e-3)


def test_weights_that_are_stored_in_fp16_are_taken_as_they_are(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float16).astype(np.float32)
    assert weights.size >= HALVED_FROM
    source = two_layers(tmp_path / "source.onnx", weights)
    onnx.save(
        onnx.load(source), source, save_as_external_data=True, location="source.onnx.data", size_threshold=math.prod((4, 4))
    )
    _halve_weights(source)
    convert(source, tmp_path / "target.onnx", ())
    convert(source, tmp_path / "kept.onnx", {"first", "second"})
    for name, casts in (("target", 2), ("kept", 1)):  # of the stage's input and output, or of the weight
        model = onnx.load(tmp_path / f"{name}.onnx")
        (weight,) = model.graph.initializer
        np.testing.assert_array_equal(numpy_helper.to_array(weight), weights.astype(np.float16))
        assert sum(node.op_type == "Cast" for node in model.graph.node) == casts


@pytest.mark.parametrize("name", STAGES)
def test_tensorrt_parses_them_without_a_warning(converted: Path, name: str) -> None:
    trt = libraries.tensorrt_rtx()
    said: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, message: str) -> None:
            if severity <= trt.ILogger.Severity.WARNING:  # type: ignore[operator]
                said.append(message)

    logger = Logger()
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = trt.Builder(logger).create_network(flags)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(converted / f"{name}.onnx"))
    assert said == []
    kinds = {network.get_layer(i).get_output(0).dtype for i in range(network.num_layers)}
    assert {trt.DataType.HALF, trt.DataType.FLOAT} <= kinds
    assert {network.get_output(i).dtype for i in range(network.num_outputs)} == {trt.DataType.FLOAT}
