"""Convert a stage's fp32 graph to a strongly typed fp16 graph, in which a Cast marks every change of type.

TensorRT no longer has an fp16 switch: it computes each node in the types that the graph declares. They are chosen here:

- Convolutions and matrix products (linear layers, attention) are fp16, and their weights are stored in fp16.
- Normalisation, softmax and other functions are fp32, and their parameters are not changed.
- Sums, products and simple activations are fp16 if all their computed inputs are fp16, else fp32. The residual sums of
  a transformer are fp32: they grow much larger than what each block adds to them.
- Operators that only move data (reshape, slice, ...) keep the type of their input, or are fp16 if only fp16 nodes read them.

The inputs and outputs of a stage stay fp32.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, defs, helper, numpy_helper

from dlf.export.progress import UNSEEN, Progress
from dlf.runtime.images import Pixels

# Writes a stage in another precision: (the fp32 stage's .onnx, the .onnx to write, names of the nodes that must stay fp32).
Converter: TypeAlias = Callable[[Path, Path, Collection[str]], None]

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT

LAYERS = {"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"}
POINTWISE = {"Abs", "Add", "Clip", "Div", "LeakyRelu", "Max", "Min", "Mul", "Neg", "Relu", "Sub"}
# These only copy values, so rounding before and after them gives the same.
MOVEMENT = {
    *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherND", "Identity", "Pad", "Reshape", "Resize", "Slice"),
    *("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
}


def prepare(bundle: Path, photographs: Sequence[Pixels], progress: Progress = UNSEEN) -> Converter:
    """Return the converter to fp16, which needs neither the bundle nor photographs."""
    return convert


def convert(source: Path, target: Path, keep: Collection[str]) -> None:
    """Write the fp16 form of the fp32 stage `source` to `target`, its weights beside it in `<target>.data`.

    The nodes named in `keep` stay fp32.
    """
    model = onnx.load(source, load_external_data=False)
    types = element_types(model)
    onnx.load_external_data_for_model(model, str(source.parent))
    to_half(model, types, keep)
    save(model, target)


def save(model: onnx.ModelProto, target: Path) -> None:
    """Write a stage to `target`, replacing a file that is there, and its weights beside it in `<target>.data`."""
    data = target.with_name(f"{target.name}.data")
    data.unlink(missing_ok=True)  # onnx would append to it
    onnx.save(model, target, save_as_external_data=True, location=data.name, size_threshold=512)
    if data.exists():
        data.chmod(target.stat().st_mode)  # onnx leaves it to its owner alone
    onnx.checker.check_model(str(target), full_check=True)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every tensor of a model; its weights need not be loaded."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    return {**values, **{weight.name: weight.data_type for weight in graph.initializer}}


def typed_inputs(node: NodeProto, opset: int) -> Iterator[int]:
    """The positions of the inputs that must have the type of the node's outputs; the others are shapes, indices and scales."""
    schema = defs.get_schema(node.op_type, opset, node.domain)
    for i, name in enumerate(node.input):
        if name and schema.inputs[min(i, len(schema.inputs) - 1)].type_str == schema.outputs[0].type_str:
            yield i


def to_half(model: onnx.ModelProto, types: Mapping[str, int], keep: Collection[str] = ()) -> None:
    """Convert an fp32 model in place. Its weights may be stored in fp16, each followed by a Cast.

    Args:
        model: with its weights loaded.
        types: `element_types` of it.
        keep: names of the nodes that stay fp32.
    """
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    weights = _take_weights(model.graph)
    floats = {
        node.output[0]: [i for i in typed_inputs(node, opset) if types[node.input[i]] == FLOAT]
        for node in model.graph.node
        if types[node.output[0]] == FLOAT
    }
    half = _choose(model.graph, floats, weights, keep)
    _rewrite(model.graph, floats, weights, half)


def _take_weights(graph: GraphProto) -> dict[str, TensorProto]:
    """Remove the float weights from a graph and return them by the names that fp32 nodes use, without the Casts of fp16 ones."""
    weights = {weight.name: weight for weight in graph.initializer if weight.data_type in (FLOAT, HALF)}
    others = [weight for weight in graph.initializer if weight.name not in weights]
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in weights]
    for cast in casts:
        weights[cast.output[0]] = weights.pop(cast.input[0])
        graph.node.remove(cast)
    del graph.initializer[:]
    graph.initializer.extend(others)
    return weights


def _choose(graph: GraphProto, floats: Mapping[str, list[int]], weights: Collection[str], keep: Collection[str]) -> set[str]:
    """Return which nodes, by the name of their first output, become fp16."""
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for i in floats.get(node.output[0], ()):
            readers[node.input[i]].append(node)
    outputs = {output.name for output in graph.output}

    def feeds_layer_norm(name: str) -> bool:
        return any(
            reader.op_type == "LayerNormalization" or (reader.op_type in MOVEMENT and feeds_layer_norm(reader.output[0]))
            for reader in readers[name]
        )

    half: set[str] = set()
    halves: set[str] = set()
    for node in graph.node:
        computed = [node.input[i] for i in floats.get(node.output[0], ()) if node.input[i] not in weights]
        if node.op_type in LAYERS:
            fits = bool(computed)
        elif node.op_type in POINTWISE | MOVEMENT:
            residual = node.op_type == "Add" and len(computed) == 2
            fits = bool(computed) and halves.issuperset(computed) and not (residual and feeds_layer_norm(node.output[0]))
        else:
            fits = False
        if fits and node.name not in keep:
            half.add(node.output[0])
            halves.update(node.output)
    for node in reversed(graph.node):
        if node.op_type in MOVEMENT and node.output[0] in floats and outputs.isdisjoint(node.output) and node.name not in keep:
            read_by = [reader for output in node.output for reader in readers[output]]
            if read_by and all(reader.output[0] in half for reader in read_by):
                half.add(node.output[0])
    return half


def _rewrite(
    graph: GraphProto, floats: Mapping[str, list[int]], weights: Mapping[str, TensorProto], half: Collection[str]
) -> None:
    """Give the chosen nodes fp16 inputs and outputs, and insert a Cast where a node needs a tensor in another type.

    The fp16 form of the tensor x is called x.half.
    """
    nodes: list[NodeProto] = []
    present: set[tuple[str, int]] = {(entry.name, FLOAT) for entry in graph.input}

    def spelled(name: str, kind: int) -> str:
        return f"{name}.half" if kind == HALF else name

    def wanted(name: str, kind: int) -> str:
        if (name, kind) not in present:
            present.add((name, kind))
            source, target = (spelled(name, k) for k in ((HALF, FLOAT) if kind == FLOAT else (FLOAT, HALF)))
            nodes.append(helper.make_node("Cast", [source], [target], f"{target}.cast", to=kind))
        return spelled(name, kind)

    read_in_half = {node.input[i] for node in graph.node if node.output[0] in half for i in floats[node.output[0]]}
    for name, weight in weights.items():
        kind = HALF if name in read_in_half or weight.data_type == HALF else FLOAT
        present.add((name, kind))
        if kind == HALF:
            with np.errstate(over="ignore"):  # an infinite weight does not get past the parity gate
                weight = numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), spelled(name, HALF))
        graph.initializer.append(weight)

    for node in graph.node:
        kind = HALF if node.output[0] in half else FLOAT
        typed = floats.get(node.output[0], [])
        for i, name in enumerate(node.input):
            if i in typed:
                node.input[i] = wanted(name, kind)
            elif (name, HALF) in present:
                node.input[i] = spelled(name, HALF) if node.op_type == "Shape" else wanted(name, FLOAT)
        nodes.append(node)
        if node.output[0] in floats:
            present.update((name, kind) for name in node.output)
            node.output[:] = [spelled(name, kind) for name in node.output]
    for entry in graph.output:
        wanted(entry.name, FLOAT)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    del graph.value_info[:]
