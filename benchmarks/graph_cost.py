"""Count a stage's cost from its ONNX graph: the operations of its matrix products and convolutions, and its data."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, shape_inference
from onnxscript import ir, optimizer

# Weights are stored in one of these; other tensors of a graph are shapes and indexes.
_NUMBERS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8, TensorProto.UINT8}
# Expensive operators that are not counted; no exported stage has them.
_REFUSED = {
    "Attention",
    "ConvInteger",
    "DeformConv",
    "GRU",
    "LSTM",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "RNN",
}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """A stage at one size.

    Attributes:
        flops: of matrix products and convolutions, two for each multiplication with its addition. All other operators
            are left out, because memory bounds them.
        weights: numbers that the graph holds.
        activations: numbers in its inputs and outputs.
    """

    flops: int
    weights: int
    activations: int

    def bytes(self, width: int) -> int:
        """Return the fewest bytes that must be read and written, at `width` bytes a number: weights, inputs and outputs once."""
        return (self.weights + self.activations) * width

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.weights + other.weights, self.activations + other.activations)


def count(path: Path, sizes: Mapping[str, int]) -> Cost:
    """Return the cost of a graph, without reading its weights.

    Args:
        path: the ONNX file.
        sizes: the values of the symbols in the inputs' dimensions; a dimension is a number, a symbol or "NUMBER*SYMBOL".

    Raises:
        ValueError: the graph has an operator that is not counted, or a shape that is not known.
    """
    model = onnx.load(path, load_external_data=False)
    weights = sum(prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in _NUMBERS)
    shapes, nodes = _shapes(model, sizes)
    ports = [*model.graph.input, *model.graph.output]
    return Cost(
        flops=sum(_flops(node, shapes) for node in nodes),
        weights=weights,
        activations=sum(prod(shapes[port.name]) for port in ports),
    )


def _shapes(model: ModelProto, sizes: Mapping[str, int]) -> tuple[dict[str, Shape], list[NodeProto]]:
    """Return the shape of every tensor at a size, and the nodes that do not depend on sizes alone."""
    at_size = ModelProto()
    at_size.CopyFrom(model)
    graph = at_size.graph
    for port in graph.input:
        for dimension in port.type.tensor_type.shape.dim:
            if dimension.dim_param:
                factor, _, symbol = dimension.dim_param.rpartition("*")
                dimension.dim_value = int(factor or 1) * sizes[symbol]
    for port in graph.output:
        port.type.tensor_type.ClearField("shape")
    del graph.value_info[:]
    _weights_as_inputs(graph)
    folded = ir.from_proto(at_size)
    assert isinstance(folded, ir.Model)
    optimizer.optimize_ir(folded, input_size_limit=1 << 20, output_size_limit=1 << 20)
    inferred = shape_inference.infer_shapes(ir.to_proto(folded), strict_mode=True, data_prop=True).graph
    known = {value.name: _shape(value) for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    known |= {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    return known, list(inferred.node)


def _weights_as_inputs(graph: GraphProto) -> None:
    """Turn weights in external files into inputs: their shapes suffice, and the files are not read."""
    inside = [tensor for tensor in graph.initializer if tensor.data_location != TensorProto.EXTERNAL]
    outside = [tensor for tensor in graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    graph.input.extend(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in outside)
    del graph.initializer[:]
    graph.initializer.extend(inside)


def _shape(value: ValueInfoProto) -> Shape:
    dims = value.type.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") for dim in dims):
        raise ValueError(f"the shape of {value.name} is unknown")
    return tuple(dim.dim_value for dim in dims)


def _flops(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    if node.op_type in _REFUSED or node.domain not in ("", "ai.onnx"):
        raise ValueError(f"node {node.name}: operator {node.op_type} is not counted")
    if node.op_type in ("MatMul", "Gemm"):
        transposed = node.op_type == "Gemm" and _attribute(node, "transA", 0)
        return 2 * prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else -1]
    if node.op_type == "Conv":  # weights are (outputs, inputs / groups, kernel)
        return 2 * prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":  # weights are (inputs, outputs / groups, kernel)
        return 2 * prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type == "Einsum":
        return _einsum_flops(node, shapes)
    return 0


def _einsum_flops(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    """Return the operations of the plain sum over all indexes."""
    equation = _attribute(node, "equation", b"").decode().replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if "..." in equation:
        raise ValueError(f"node {node.name}: the equation {equation} is not counted")
    sides = {
        index: side for term, name in zip(terms, node.input, strict=True) for index, side in zip(term, shapes[name], strict=True)
    }
    return len(terms) * prod(sides.values())


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(found) for found in node.attribute if found.name == name), default)
