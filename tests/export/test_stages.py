"""The stages' graphs: dynamic, equal to PyTorch, and refused where they are not."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.export import TINY, tiny_model
from onnx import numpy_helper

from dlf.export.stages import PARITY_SIZES, Stage, check_stage, run_codec, stages
from dlf.runtime.errors import ExportError


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 2, 3), (3, 1, 2)])
def test_equals_pytorch_at_any_size(tiny_bundle: Path, size: tuple[int, int, int]) -> None:
    samples = run_codec(tiny_model(), *size)
    for stage in stages(TINY):
        sample = samples[stage.name]
        session = onnxruntime.InferenceSession(tiny_bundle / f"{stage.name}.onnx", providers=["CPUExecutionProvider"])
        outputs = session.run(None, {port.name: x.numpy() for port, x in zip(stage.inputs, sample.inputs, strict=True)})
        for port, actual, expected in zip(stage.outputs, outputs, sample.outputs, strict=True):
            assert actual.shape == port.at(*size)
            assert np.abs(actual - expected.numpy()).max() <= 1e-4 * expected.abs().max().item(), (stage.name, port.name)


@pytest.mark.parametrize("stage", stages(TINY), ids=lambda stage: stage.name)
def test_graph_names_its_axes_and_keeps_norms_whole(tiny_bundle: Path, stage: Stage) -> None:
    model = onnx.load(tiny_bundle / f"{stage.name}.onnx", load_external_data=False)
    for port, value in zip((*stage.inputs, *stage.outputs), (*model.graph.input, *model.graph.output), strict=True):
        assert value.name == port.name
        axes = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        assert axes == port.describe()["shape"]
    operators = {node.op_type for node in model.graph.node}
    assert "ReduceMean" not in operators
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_parity_refuses_a_graph_that_differs(tiny_bundle: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_bundle / "adaptor.onnx")
    codebook = next(t for t in model.graph.initializer if tuple(t.dims) == (TINY.vqgan_codebook_size, TINY.vqgan_codebook_dim))
    codebook.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(codebook) * np.float32(1.001), codebook.name))
    onnx.save(model, tmp_path / "adaptor.onnx")
    adaptor = stages(TINY)[2]
    samples = [run_codec(tiny_model(), *size)["adaptor"] for size in PARITY_SIZES]
    check_stage(adaptor, tiny_bundle / "adaptor.onnx", samples)
    with pytest.raises(ExportError, match=r"stage adaptor: its output latent is 1\.0e-03"):
        check_stage(adaptor, tmp_path / "adaptor.onnx", samples)


def test_reference_run_leaves_the_model_as_it_was() -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run_codec(model, 1, 1, 1)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, before[name]), name
