"""Convert a stage's fp32 graph to one that stores its large weights in int8, and computes in float as before.

A matrix, be it a product's weight or a table that is looked up or added (of positions, of a codebook), is stored as integers and
a scale for each output channel or row, and a Cast and a Mul restore it; runtimes compute that once, when they load the stage. So
every runtime gives the same picture, to the rounding of floats, and a page loads a quarter of the bytes.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from dlf.export.fp16 import LAYERS, Converter
from dlf.export.int8 import LEVELS, quantise
from dlf.export.progress import UNSEEN, Progress
from dlf.export.stage_graph import StageGraph
from dlf.runtime.images import Pixels

# The axis of the output channels of the second input of these nodes; of all else it is the first.
OUTPUT_AXIS = {"ConvTranspose": 1, "MatMul": 1}


def prepare(bundle: Path, photographs: Sequence[Pixels], progress: Progress = UNSEEN) -> Converter:
    """Return the converter, which needs neither the bundle nor photographs."""
    return convert


def convert(source: Path, target: Path, keep: Collection[str]) -> None:
    """Write the fp32 stage `source` with its matrices in int8 to `target`, these beside it in `<target>.data`.

    Those that belong to the nodes named in `keep` stay as they are: a matrix belongs to the first product that it reaches.
    """
    graph = StageGraph(source)
    products = _first_products(graph.proto)
    nodes: list[NodeProto] = []
    tensors: list[TensorProto] = []
    done = set()
    for node in graph.proto.node:
        for i, name in enumerate(node.input):
            product = products.get(name)
            if product is None or product in keep or not graph.is_matrix(name) or node.op_type == "Cast":
                continue
            stored, scale, floats, restored = (f"{name}.{what}" for what in ("int8", "scale", "float", "restored"))
            if name not in done:
                done.add(name)
                axis = OUTPUT_AXIS.get(node.op_type, 0) if i == 1 else 0
                weight = graph.weight(name)
                values, scales = quantise(weight, axis, LEVELS)
                scales = np.expand_dims(scales, tuple(range(1, weight.ndim - axis)))  # beside the axis that they belong to
                tensors += [numpy_helper.from_array(values, stored), numpy_helper.from_array(scales, scale)]
                nodes += [
                    helper.make_node("Cast", [stored], [floats], f"{floats}.node", to=TensorProto.FLOAT),
                    helper.make_node("Mul", [floats, scale], [restored], f"{restored}.node"),
                ]
            node.input[i] = restored
        nodes.append(node)
    graph.save(nodes, tensors, target)


def _first_products(graph: GraphProto) -> dict[str, str]:
    """The name of the first product that each tensor reaches."""
    found: dict[str, str] = {}
    for node in reversed(graph.node):
        reached = node.name if node.op_type in LAYERS else next((found[name] for name in node.output if name in found), None)
        if reached is not None:
            found.update(dict.fromkeys(node.input, reached))
    return found
