"""Convert a stage's fp32 graph to one that stores its large weights in int8, and computes in float as before.

A weight of a product is stored as integers and a scale for each output channel, and a Cast and a Mul restore it; runtimes compute
that once, when they load the stage. So every runtime gives the same picture, to the rounding of floats, and a page loads a
quarter of the bytes.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from dlf.export.fp16 import Converter
from dlf.export.int8 import LEVELS, quantise
from dlf.export.progress import UNSEEN, Progress
from dlf.export.stage_graph import StageGraph
from dlf.runtime.images import Pixels

# The axis of the weight's output channels, of each kind of product.
OUTPUT_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": 1}


def prepare(bundle: Path, photographs: Sequence[Pixels], progress: Progress = UNSEEN) -> Converter:
    """Return the converter, which needs neither the bundle nor photographs."""
    return convert


def convert(source: Path, target: Path, keep: Collection[str]) -> None:
    """Write the fp32 stage `source` with its products' weights in int8 to `target`, these beside it in `<target>.data`.

    The weights of the nodes named in `keep` stay as they are.
    """
    graph = StageGraph(source)
    nodes: list[NodeProto] = []
    tensors: list[TensorProto] = []
    done = set()
    for node in graph.proto.node:
        if node.op_type in OUTPUT_AXIS and node.name not in keep and len(graph.shape(node.input[1])) > 1:
            name = node.input[1]
            if name not in done:
                done.add(name)
                axis = OUTPUT_AXIS[node.op_type]
                weight = graph.weight(name)
                values, scales = quantise(weight, axis, LEVELS)
                scales = np.expand_dims(scales, tuple(range(1, weight.ndim - axis)))  # beside the axis of output channels
                stored, scale, floats, restored = (f"{name}.{what}" for what in ("int8", "scale", "float", "restored"))
                tensors += [numpy_helper.from_array(values, stored), numpy_helper.from_array(scales, scale)]
                nodes += [
                    helper.make_node("Cast", [stored], [floats], f"{floats}.node", to=TensorProto.FLOAT),
                    helper.make_node("Mul", [floats, scale], [restored], f"{restored}.node"),
                ]
            node.input[1] = f"{name}.restored"
        nodes.append(node)
    graph.save(nodes, tensors, target)
