"""The cut of the pixel generator: a graph that ends where libdlf's kernels go on, and the list of what they compute.

The generator's upper levels, from the first upsampling to the image, are convolutions that libdlf does in a quarter of the
products, by Winograd's method. `cut` writes, beside the whole graph of the generator, one that ends with the map that enters
these levels, and returns their list for the manifest (docs/format.md, section 4). All three share one file of weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper
from onnx.external_data_helper import set_external_data
from torch import nn

from dlf.export.fusion import fused
from dlf.export.model import DLF
from dlf.export.query_blocks import in_query_blocks
from dlf.runtime.formats import BASE, GENERATOR_BASE

ROOT = "model"  # what the exporter prefixes the names of parameters with
TENSORS = ("weight", "bias", "gamma", "beta")
DTYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.INT8: "int8"}


def listed(model: DLF) -> list[dict[str, Any]]:
    """The steps of a model's levels, in their order, as the manifest has them, with the names of tensors alone."""
    generator = model.vqgan.decoder
    with fused(model):
        names = {module: name for name, module in model.named_modules(prefix=ROOT)}

        def step(kind: str, conv: nn.Module, norm: nn.Module | None = None) -> dict[str, Any]:
            entry = {"kind": kind, "weight": f"{names[conv]}.weight", "bias": f"{names[conv]}.bias"}
            if norm is None:
                return entry
            numbers = {"groups": norm.num_groups, "epsilon": norm.eps}
            return {**entry, **numbers, "gamma": f"{names[norm]}.weight", "beta": f"{names[norm]}.bias"}

        def block(module: Any) -> list[dict[str, Any]]:
            shortcut = [] if isinstance(module.nin_shortcut, nn.Identity) else [step("shortcut", module.nin_shortcut)]
            return [step("first", module.conv1, module.norm1), *shortcut, step("second", module.conv2, module.norm2)]

        def upsampling(module: nn.Module) -> list[dict[str, Any]]:
            if isinstance(module, nn.Identity):
                return []
            return [step("upsample", getattr(module, "conv", module))]  # `fused` makes some one convolution

        lowest, *others = generator.levels()
        found = upsampling(lowest.upsample)
        for level in others:
            found += [each for module in level.block for each in block(module)] + upsampling(level.upsample)
        return [*found, step("output", generator.conv_out, generator.norm_out)]


def cut(path: Path, shape: Sequence[int | str], steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write the graph below the levels beside the generator's whole graph, and return the list of the levels for the manifest.

    Args:
        path: the whole graph, in which a tensor is named `BASE`. The levels' tensors are moved to its file of weights.
        shape: that tensor's, as the manifest has it.
        steps: what `listed` returns.
    """
    model = onnx.load(path, load_external_data=False)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    data = path.with_name(f"{path.name}.data")

    def place(name: str) -> dict[str, Any]:
        tensor = stored[name]
        _move_out(tensor, data)
        offset = next(int(entry.value) for entry in tensor.external_data if entry.key == "offset")
        shape = [side for i, side in enumerate(tensor.dims) if i == 0 or len(tensor.dims) != 3]  # (C, 1, 1) counts as (C,)
        return {"dtype": DTYPES[tensor.data_type], "shape": shape, "offset": offset}

    def entry(name: str) -> dict[str, Any]:
        """Of a tensor: as it is stored, or what `stages` and `int8` store in its stead, by the names that they give it."""
        if f"{name}.int8" in stored:
            return {"name": name, **place(f"{name}.int8"), "scale": place(f"{name}.scale")}
        return {"name": name, **place(f"{name}.half" if f"{name}.half" in stored else name)}

    found = [{key: entry(value) if key in TENSORS else value for key, value in step.items()} for step in steps]
    onnx.save(model, path)
    below = path.with_name(f"{GENERATOR_BASE}.onnx")
    base = _below(model, shape)
    in_query_blocks(base)
    onnx.save(base, below)
    onnx.checker.check_model(str(below), full_check=True)
    return found


def unplaced(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The steps of a manifest as `listed` returns them, for another graph of the same model."""
    return [{key: value["name"] if key in TENSORS else value for key, value in step.items()} for step in steps]


def _move_out(tensor: TensorProto, data: Path) -> None:
    """Append a tensor that the graph holds itself to the file of weights."""
    if tensor.data_location == TensorProto.EXTERNAL:
        return
    values = onnx.numpy_helper.to_array(tensor).tobytes()
    with data.open("ab") as file:
        file.write(bytes(-file.tell() % 16))
        offset = file.tell()
        file.write(values)
    for field in ("float_data", "int32_data"):
        tensor.ClearField(field)
    tensor.raw_data = values  # which `set_external_data` asks for
    set_external_data(tensor, data.name, offset, len(values))
    tensor.ClearField("raw_data")


def _below(model: ModelProto, shape: Sequence[int | str]) -> ModelProto:
    """The part of a model that computes `BASE`, as a model."""
    wanted, nodes = {BASE}, []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.append(node)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    output = helper.make_tensor_value_info(BASE, TensorProto.FLOAT, shape)
    graph = GraphProto(name=GENERATOR_BASE, input=model.graph.input, output=[output], node=nodes[::-1], initializer=tensors)
    return ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        opset_import=model.opset_import,
        functions=model.functions,
        graph=graph,
    )
