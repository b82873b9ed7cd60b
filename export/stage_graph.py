"""A stage's graph and its weights, for the conversions that store some of them in another form."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from dlf.export.fp16 import FLOAT, HALF, save


class StageGraph:
    """A stage's graph, whose weights are read when they are asked for.

    Attributes:
        model: the whole model, without what lies in its file of weights.
        proto: its graph.
    """

    def __init__(self, file: Path) -> None:
        self.model: ModelProto = onnx.load(file, load_external_data=False)
        self.proto = self.model.graph
        self._folder = str(file.parent)
        self._tensors = {tensor.name: tensor for tensor in self.proto.initializer}
        for node in self.proto.node:  # a weight stored in fp16 goes by the name that its Cast gives it
            if node.op_type == "Cast" and node.input[0] in self._tensors:
                self._tensors[node.output[0]] = self._tensors[node.input[0]]

    def weight(self, name: str) -> NDArray[np.float32]:
        """A weight, as float32."""
        return numpy_helper.to_array(self._tensors[name], self._folder).astype(np.float32)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a weight; of anything else, ()."""
        return tuple(self._tensors[name].dims) if name in self._tensors else ()

    def is_matrix(self, name: str) -> bool:
        """Whether this is a weight of floats with two axes, or more, that are longer than 1."""
        tensor = self._tensors.get(name)
        return tensor is not None and tensor.data_type in (FLOAT, HALF) and sum(length > 1 for length in tensor.dims) > 1

    def save(self, nodes: Sequence[NodeProto], tensors: Sequence[TensorProto], target: Path) -> None:
        """Write the graph with these nodes and, beside its own, these tensors to `target`, without weights that are not read."""
        read = {name for node in nodes for name in node.input if node.op_type != "Cast"}
        nodes = [
            NodeProto.FromString(node.SerializeToString()) for node in nodes if node.op_type != "Cast" or node.output[0] in read
        ]
        read = {name for node in nodes for name in node.input}
        weights = [tensor for tensor in self.proto.initializer if tensor.name in read]
        weights = [TensorProto.FromString(tensor.SerializeToString()) for tensor in weights]
        del self.proto.node[:], self.proto.initializer[:]
        self.proto.node.extend(nodes)
        self.proto.initializer.extend(weights)
        onnx.load_external_data_for_model(self.model, self._folder)
        self.proto.initializer.extend(tensors)
        save(self.model, target)
