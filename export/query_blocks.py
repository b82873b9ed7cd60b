"""Attention over a whole map in blocks of queries, so that no matrix of all positions by all positions is ever in memory.

Each block of queries meets all keys and values in an iteration of an ONNX Loop: the same products, softmax and sums as without
blocks. It is for the graph of the generator's base, which runs on CPUs: OpenVINO does this by itself, ONNX Runtime does not. The
whole graph, which TensorRT runs, keeps the plain form.
"""

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

BLOCK = 256  # queries: the positions of a tile, so that it divides those of every map


def in_query_blocks(model: ModelProto) -> None:
    """Rewrite every softmax(q k) v of a graph in place. q is (n, heads, positions, width); `BLOCK` divides the positions."""
    graph = model.graph
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in inferred.value_info}
    producers = {name: node for node in graph.node for name in node.output}
    readers = {name: node for node in graph.node for name in node.input}
    softmaxes = [node for node in graph.node if node.op_type == "Softmax"]
    nodes = list(graph.node)
    for softmax in softmaxes:
        logits, mixed = producers[softmax.input[0]], readers[softmax.output[0]]
        at = nodes.index(mixed)
        width = shapes[logits.input[0]][-1].dim_value
        nodes[at : at + 1] = _blocks(graph, logits, softmax, mixed, width)
        nodes.remove(logits)
        nodes.remove(softmax)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _blocks(graph: GraphProto, logits: NodeProto, softmax: NodeProto, mixed: NodeProto, width: int) -> list[NodeProto]:
    """The nodes that compute the output of `mixed` in blocks."""
    name = mixed.output[0]

    def constant(what: str, values: list[int]) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(values), f"{name}.{what}"))
        return f"{name}.{what}"

    queries, out = f"{name}.queries", f"{name}.block"
    body = helper.make_graph(
        [
            helper.make_node("Gather", [queries, f"{name}.number"], [f"{name}.query"], f"{name}.query.node", axis=2),
            helper.make_node("MatMul", [f"{name}.query", logits.input[1]], logits.output, logits.name),
            softmax,
            helper.make_node("MatMul", [softmax.output[0], mixed.input[1]], [out], mixed.name),
            helper.make_node("Identity", [f"{name}.go"], [f"{name}.on"], f"{name}.on.node"),
        ],
        f"{name}.blocks",
        [
            helper.make_tensor_value_info(f"{name}.number", TensorProto.INT64, []),
            helper.make_tensor_value_info(f"{name}.go", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info(f"{name}.on", TensorProto.BOOL, []),
            helper.make_tensor_value_info(out, TensorProto.FLOAT, [None] * 4),
        ],
    )
    return [
        # (n, heads, blocks, BLOCK, width)
        helper.make_node("Reshape", [logits.input[0], constant("cut", [0, 0, -1, BLOCK, width])], [queries], f"{queries}.node"),
        helper.make_node("Shape", [queries], [f"{name}.counts"], f"{name}.counts.node", start=2, end=3),
        helper.make_node("Squeeze", [f"{name}.counts"], [f"{name}.count"], f"{name}.count.node"),
        helper.make_node("Loop", [f"{name}.count", ""], [f"{name}.stacked"], f"{name}.loop", body=body),
        helper.make_node("Transpose", [f"{name}.stacked"], [f"{name}.sorted"], f"{name}.sorted.node", perm=[1, 2, 0, 3, 4]),
        helper.make_node("Reshape", [f"{name}.sorted", constant("joined", [0, 0, -1, width])], [name], f"{name}.node"),
    ]
