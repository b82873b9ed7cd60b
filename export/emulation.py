"""Graphs that emulate fp16 on a CPU, so that the error of that precision can be measured on any machine.

A CPU runtime computes parts of an fp16 graph in fp32: it puts casts around the nodes for which it has no fp16 code and removes
pairs of casts, so values that a GPU would round stay in fp32. The emulated graph prevents this. It computes everything in fp32,
and rounds the output of each fp16 node by Cast(Cast(x, fp16), fp32). A runtime must not remove such a pair: ONNX Runtime
keeps them (`tests/export/test_emulation.py` compares with NumPy's float16). A node's own sums are in fp32, as in
the tensor cores' accumulators.
"""

from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
from onnx import NodeProto, helper

from dlf.export.fp16 import FLOAT, HALF, MOVEMENT, element_types
from dlf.runtime.backends import Arrays

_LARGEST = "largest "


def emulate(source: Path, target: Path) -> None:
    """Write the emulated form of the graph `source` to `target`, in the same folder; both use the same weight files.

    It has one more output, a scalar, for each fp16 tensor that is computed: the largest magnitude before rounding.
    """
    assert source.parent == target.parent
    model = onnx.load(source, load_external_data=False)
    types = element_types(model)
    graph = model.graph
    halves = [weight.name for weight in graph.initializer if weight.data_type == HALF]
    nodes = [helper.make_node("Cast", [name], [_wide(name)], to=FLOAT) for name in halves]
    for node in graph.node:
        node.input[:] = [_wide(name) if name in halves else name for name in node.input]
        rounded = [name for name in node.output if types.get(name) == HALF and node.op_type not in MOVEMENT]
        if node.op_type == "Cast" and rounded:
            node.attribute[0].i = FLOAT
        node.output[:] = [f"{name} exact" if name in rounded else name for name in node.output]
        nodes.append(node)
        for name in rounded:
            nodes += _round(f"{name} exact", name)
            graph.output.append(helper.make_tensor_value_info(_LARGEST + name, FLOAT, []))
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(copies)
    onnx.save(model, target)


def _wide(name: str) -> str:
    return f"{name} wide"


def _round(source: str, target: str) -> list[NodeProto]:
    return [
        helper.make_node("Cast", [source], [f"{target} rounded"], to=HALF),
        helper.make_node("Cast", [f"{target} rounded"], [target], to=FLOAT),
        helper.make_node("Abs", [source], [f"{target} magnitude"]),
        helper.make_node("ReduceMax", [f"{target} magnitude"], [_LARGEST + target], keepdims=0),
    ]


def load(path: Path, threads: int) -> Callable[[Arrays], tuple[Arrays, dict[str, float]]]:
    """Load an emulated graph in ONNX Runtime, without optimisations that would change what it rounds.

    A run returns the stage's outputs, and each fp16 tensor's largest magnitude before it was rounded.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False  # it would grow with every run
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> tuple[Arrays, dict[str, float]]:
        found = dict(zip(names, session.run(names, inputs), strict=True))
        magnitudes = {name.removeprefix(_LARGEST): float(found.pop(name)) for name in names if name.startswith(_LARGEST)}
        return found, magnitudes

    return run
