"""The four stages of the codec as ONNX graphs, each compared with PyTorch before it is accepted.

A stage is exported once, with dynamic batch, height and width, and then run in ONNX Runtime at other sizes than that of
the export.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxscript import optimizer
from torch import Tensor, nn
from torch.export import Dim

from dlf.export.fusion import fused
from dlf.export.model import DLF, Config
from dlf.export.relative import relative
from dlf.runtime.errors import ExportError
from dlf.runtime.formats import BASE, DETAIL_PER_TILE, TILE, TOKENS_PER_TILE

log = logging.getLogger(__name__)

OPSET = 18
# Largest deviation from PyTorch, relative to the largest magnitude of the tensor.
PARITY = 1e-4
# Constants that are computed from others are folded up to this many elements: a table of displacements stays (31, 31) in the
# file, not (256, 256). Runtimes fold the rest when they load the graph.
LARGEST_FOLDED = 4096
# Smaller tensors than this stay in float32 and in the graph, where weights are stored in float16.
HALVED_FROM = 256
# (images, tiles down, tiles across): the export's, and those of the comparison.
EXPORT_SIZE = (2, 2, 3)
PARITY_SIZES = ((1, 1, 2), (2, 2, 1))

# The parts of the model that a stage runs.
MODULES = {
    "analysis": ("hybrid_codec.encoder", "hybrid_codec.quantize_feat"),
    "synthesis": ("hybrid_codec.decoder", "hybrid_codec.quantize_feat"),
    "adaptor": ("prior_fusion", "vqgan.quantize"),
    "generator": ("vqgan.post_quant_conv", "vqgan.decoder"),
}

# A dimension is a number or a factor of one of n (images), h (tiles down) and w (tiles across).
Dimension = int | tuple[int, str]


@dataclass(frozen=True)
class Port:
    """A named input or output of a stage, float32."""

    name: str
    shape: tuple[Dimension, ...]

    def at(self, n: int, h: int, w: int) -> tuple[int, ...]:
        """The shape for n images of h by w tiles."""
        sizes = {"n": n, "h": h, "w": w}
        return tuple(d if isinstance(d, int) else d[0] * sizes[d[1]] for d in self.shape)

    def describe(self) -> dict[str, object]:
        """Return the port's entry in the bundle's manifest."""
        shape = [d if isinstance(d, int) else d[1] if d[0] == 1 else f"{d[0]}*{d[1]}" for d in self.shape]
        return {"name": self.name, "dtype": "float32", "shape": shape}

    def dynamic(self, dims: dict[str, Dim]) -> dict[int, Dim]:
        """The port's dynamic axes for `torch.export`."""
        return {axis: d[0] * dims[d[1]] for axis, d in enumerate(self.shape) if not isinstance(d, int)}


@dataclass(frozen=True)
class Stage:
    """One exported graph."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    inner: tuple[Port, ...] = ()  # maps inside of it that have these names in the graph
    method: str | None = None  # of the model, that returns the outputs and the inner maps; None: it is named like the stage


def _map(name: str, channels: int, factor: int) -> Port:
    return Port(name, ((1, "n"), channels, (factor, "h"), (factor, "w")))


def stages(config: Config) -> tuple[Stage, ...]:
    """The stages in the order in which the codec runs them; also the manifest's description of their ports."""
    image = _map("image", 3, TILE)
    y, latent = _map("y", config.detail_channels, DETAIL_PER_TILE), _map("latent", config.vqgan_codebook_dim, 16)
    z_shape = ((1, "n"), (1, "h"), (1, "w"), config.codebook_dim, TOKENS_PER_TILE)
    maps = (_map("semantic", config.vit_width, 16), _map("detail", config.detail_width, 16))
    return (
        Stage("analysis", (image,), (Port("z", z_shape), y)),
        Stage("synthesis", (Port("z_hat", z_shape), Port("y_hat", y.shape)), maps),
        Stage("adaptor", maps, (latent,)),
        Stage("generator", (latent,), (image,), (_map(BASE, config.generator_width, 16),), "generator_with_base"),
    )


class _Graph(nn.Module):
    """A method of the model as a module, which the exporter needs; the graph has only the parameters that the method uses."""

    def __init__(self, model: DLF, method: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.method(*inputs)


@dataclass(frozen=True)
class Sample:
    """A stage's inputs and PyTorch's outputs for them, at one size; tensors in the order of the stage's ports."""

    size: tuple[int, int, int]  # n, h, w
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@torch.no_grad()
def _run_in_double(model: DLF, stage: str, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Run a stage in float64, with outputs in float32: PyTorch's float32 error in the generator is as large as `PARITY`."""
    modules = [model.get_submodule(name) for name in MODULES[stage]]
    states = [module.state_dict() for module in modules]
    for module in modules:
        module.double()
    outputs = getattr(model, stage)(*(x.double() for x in inputs))
    for module, state in zip(modules, states, strict=True):
        module.load_state_dict(state, assign=True)  # the tensors themselves, which may be memory-mapped
    return tuple(x.float() for x in (outputs if isinstance(outputs, tuple) else (outputs,)))


@torch.no_grad()
def run_codec(model: DLF, n: int, h: int, w: int) -> dict[str, Sample]:
    """Run the whole codec in PyTorch on n synthetic images of h by w tiles, and return a sample for each stage."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(n, 3, 8 * h, 8 * w, generator=generator)
    image = nn.functional.interpolate(coarse, scale_factor=32, mode="bicubic")
    image = (image + 0.1 * torch.randn(image.shape, generator=generator)).clamp(0, 1) * 2 - 1
    z, y = _run_in_double(model, "analysis", image)
    z_hat = model.hybrid_codec.quantize.embed(model.hybrid_codec.quantize.look_up(z))
    y_hat = model.hybrid_codec.quantize_feat.quantise(y).y_hat
    maps = _run_in_double(model, "synthesis", z_hat, y_hat)
    latent = _run_in_double(model, "adaptor", *maps)
    size = (n, h, w)
    return {
        "analysis": Sample(size, (image,), (z, y)),
        "synthesis": Sample(size, (z_hat, y_hat), maps),
        "adaptor": Sample(size, maps, latent),
        "generator": Sample(size, latent, _run_in_double(model, "generator", *latent)),
    }


def export_stage(model: DLF, stage: Stage, folder: Path, half_weights: bool = False) -> Path:
    """Write `folder/<stage>.onnx`, with its weights beside it in `<stage>.onnx.data`, in 16 bits if `half_weights`."""
    dims = {"n": Dim("n", min=1, max=256), "h": Dim("h", min=1, max=64), "w": Dim("w", min=1, max=64)}
    with fused(model):
        program = torch.onnx.export(
            _Graph(model, getattr(model, stage.method or stage.name)).eval(),
            tuple(torch.zeros(port.at(*EXPORT_SIZE)) for port in stage.inputs),
            input_names=[port.name for port in stage.inputs],
            output_names=[port.name for port in (*stage.outputs, *stage.inner)],
            dynamic_shapes=(tuple(port.dynamic(dims) for port in stage.inputs),),
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    optimizer.optimize_ir(program.model, output_size_limit=LARGEST_FOLDED)
    path = folder / f"{stage.name}.onnx"
    program.save(path, external_data=True)
    _tidy(path, stage)
    if half_weights:
        _halve_weights(path)
    return path


def _tidy(path: Path, stage: Stage) -> None:
    """Remove the exporter's notes (most of a graph's bytes) and inner outputs, and name the outputs' axes like the inputs'."""
    proto = onnx.load(path, load_external_data=False)
    proto.producer_name, proto.doc_string = "dlf", ""
    del proto.metadata_props[:]
    graph = proto.graph
    for entry in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output, graph):
        entry.doc_string = ""
        del entry.metadata_props[:]
    del graph.value_info[:]
    del graph.output[len(stage.outputs) :]
    for port, value in zip((*stage.inputs, *stage.outputs), (*graph.input, *graph.output), strict=True):
        for axis, d in enumerate(port.describe()["shape"]):  # type: ignore[arg-type, var-annotated]
            dim = value.type.tensor_type.shape.dim[axis]
            if isinstance(d, str):
                dim.dim_param = d
            else:
                dim.dim_value = d
    onnx.save(proto, path)


def _halve_weights(path: Path) -> None:
    """Store in float16 the weights that it holds exactly, as it does the model's own once they are rounded.

    Each is followed by a cast to float32, which runtimes fold when they load the graph.
    """
    model = onnx.load(path)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or math.prod(weight.dims) < HALVED_FROM:
            continue
        name, values = weight.name, onnx.numpy_helper.to_array(weight)
        half = values.astype(np.float16)
        if np.array_equal(half, values):
            weight.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [weight.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    data = path.with_name(f"{path.name}.data")
    data.unlink()
    onnx.save(model, path, save_as_external_data=True, location=data.name, size_threshold=HALVED_FROM)
    data.chmod(path.stat().st_mode)  # onnx leaves it to its owner alone


def check_stage(stage: Stage, path: Path, samples: Sequence[Sample]) -> list[dict[str, float]]:
    """Validate a stage's graph and compare it with PyTorch in ONNX Runtime.

    Returns for each sample its size and the relative error of each output, as the manifest records them.

    Raises:
        ExportError: an output is further than `PARITY` from PyTorch's.
    """
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    report = []
    for sample in samples:
        actual = session.run(None, {port.name: x.numpy() for port, x in zip(stage.inputs, sample.inputs, strict=True)})
        errors = {
            port.name: relative(np.abs(a - e.numpy()).max(), np.abs(e.numpy()).max())
            for port, a, e in zip(stage.outputs, actual, sample.outputs, strict=True)
        }
        log.info("%s at %s: relative error %s", stage.name, sample.size, {name: f"{error:.1e}" for name, error in errors.items()})
        for name, error in errors.items():
            if not error <= PARITY:  # also refuses NaN
                raise ExportError(
                    f"stage {stage.name}: its output {name} is {error:.1e} from PyTorch's at (n, h, w) = {sample.size}; "
                    f"at most {PARITY:.0e} is accepted"
                )
        report.append({**dict(zip("nhw", sample.size, strict=True)), **errors})
    return report
