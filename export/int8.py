"""Convert a stage's fp32 graph to int8 for its large products: post-training quantisation, calibrated on photographs.

A product is a convolution or a matrix product with a weight. Its activation passes through QuantizeLinear and DequantizeLinear,
its weight, stored in int8, through DequantizeLinear; runtimes merge them with the product. An activation has one scale and is
symmetric about zero, the only form that TensorRT accepts; a weight has a scale for each output channel, and uses half the range
of int8, so that no processor's sums overflow (`WEIGHT_LEVELS`). Everything else stays in float: norms, softmax, the products of
activations in attention, depthwise convolutions, the layers next to the image, those that compute z and y, and every product
whose error in int8 is too large.

Scales are chosen for the smallest error of the product's output on rows of real activations. If a LayerNorm feeds the product,
the ranges of its channels are made more equal first, at no cost: the norm is divided by factors that multiply the weight
(SmoothQuant: Xiao et al., ICML 2023).
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from dlf.export.fp16 import Converter
from dlf.export.progress import UNSEEN, Progress, tiles_of
from dlf.export.stage_graph import StageGraph
from dlf.runtime.backends import Arrays
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import ExportError
from dlf.runtime.formats import STAGES, TILE, TOKENS_PER_TILE
from dlf.runtime.images import Pixels, load, pad_to_tiles
from dlf.runtime.libdlf import EntropyModel

Matrix: TypeAlias = NDArray[np.float32]

# Photographs are cut into pieces of so many tiles across, since the inputs of all products of a stage are held at once.
TILES_AT_ONCE = 2
# Rows of each product's input that are kept, over all pieces.
ROWS = 256
# Of each product, output channels by whose errors scales are chosen; the error that decides whether it is quantised is of all.
CHANNELS = 256
# Clipping its largest values leaves finer steps for the rest of an activation; these shares of the largest magnitude are tried.
CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
# How much of the difference between an activation's channels moves into the weight.
SMOOTHING = (0.3, 0.5, 0.7)
# A product whose own output is further off, RMS over RMS, stays in float.
LARGEST_ERROR = 0.05
# Inputs and outputs of stages; a product with no other between it and one of these stays in float.
SENSITIVE_PORTS = {"image", "z", "y"}
# So do those whose weight has one of these in its name: the transforms around SQ, which are small.
SENSITIVE_PARTS = ("quantize_feat",)
# The colour photographs that these packages contain.
SAMPLE = {
    "skimage": [f"data/{name}" for name in ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")],
    "sklearn": [f"datasets/images/{name}" for name in ("china.jpg", "flower.jpg")],
}
LEVELS = 127
# Half of int8's range, so that the sum of two products fits 16 bits (docs/format.md): with 127 a picture lost 8 dB on a processor
# without VNNI.
WEIGHT_LEVELS = 64
SMALLEST = 1e-12  # a scale is not 0


@dataclass(frozen=True)
class _Product:
    """A node that multiplies an activation by a constant matrix."""

    node: NodeProto
    weight: str  # the tensor that holds the matrix

    @property
    def output_axis(self) -> int:
        """The axis of the weight's output channels."""
        return 0 if self.node.op_type == "Conv" else 1

    def matrix(self, weight: Matrix) -> Matrix:
        """The weight as (inputs, outputs): of a transposed convolution, what a position of its input adds to those around it."""
        return weight.reshape(len(weight), -1).T if self.node.op_type == "Conv" else weight.reshape(len(weight), -1)

    def some_channels(self, weight: Matrix) -> Matrix:
        """The weight of `CHANNELS` of its output channels, evenly spread, or of a few more."""
        channels = weight.shape[self.output_axis]
        return weight.take(range(0, channels, max(1, channels // CHANNELS)), self.output_axis)

    def channel_axis(self, x: Matrix) -> int:
        """The axis of an input's channels."""
        return x.ndim - 1 if self.node.op_type == "MatMul" else 1

    def rows(self, x: Matrix, kernel: Sequence[int], count: int, rng: np.random.Generator) -> Matrix:
        """Return the rows (count, inputs) of an input that the matrix multiplies at some positions."""
        if self.node.op_type != "Conv":
            flat = np.moveaxis(x, self.channel_axis(x), -1).reshape(-1, x.shape[self.channel_axis(x)])
            return flat[rng.integers(len(flat), size=count)]
        attributes: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in self.node.attribute}
        top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
        down, across = attributes.get("strides", (1, 1))
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        windows = sliding_window_view(padded, tuple(kernel), axis=(2, 3))[:, :, ::down, ::across]
        n, _, height, width = windows.shape[:4]
        i, j, k = rng.integers((n, height, width), size=(count, 3)).T
        rows: Matrix = windows[i, :, j, k].reshape(count, -1)
        return rows


@dataclass
class _Activation:
    """A tensor that products read, and how it will be quantised."""

    products: list[_Product]
    norm: NodeProto | None  # the LayerNorm that makes it, if these products alone read it, as matrices
    largest: Matrix = field(default_factory=lambda: np.zeros(1, np.float32))  # magnitude, of each channel
    rows: list[list[Matrix]] = field(default_factory=list)  # of each product
    scale: float = 0.0
    smoothing: Matrix | None = None  # what its channels are divided by
    errors: dict[str, float] = field(default_factory=dict)  # of each product's output, by the node's name

    def observe(self, x: Matrix, kernels: Sequence[Sequence[int]], count: int, rng: np.random.Generator) -> None:
        """Note the range of a piece's activation, and keep rows of it."""
        channel = self.products[0].channel_axis(x)
        others = tuple(axis for axis in range(x.ndim) if axis != channel)
        self.largest = np.maximum(self.largest, np.maximum(x.max(axis=others), -x.min(axis=others)))
        self.rows.append([p.rows(x, kernel, count, rng) for p, kernel in zip(self.products, kernels, strict=True)])

    def settle(self, weights: Sequence[Matrix]) -> None:
        """Choose smoothing and scale by the products' errors, and release the rows."""
        rows = [np.concatenate(each) for each in zip(*self.rows, strict=True)]
        self.rows.clear()
        some = [p.some_channels(w) for p, w in zip(self.products, weights, strict=True)]
        ways = [None, *(self._smooth(weights, share) for share in (SMOOTHING if self.norm else ()))]
        trials = [self._trial(rows, some, smoothing) for smoothing in ways]
        best = min(trials, key=lambda trial: math.hypot(*trial.errors(CLIPS[0])))
        clip = min(CLIPS, key=lambda clip: math.hypot(*best.errors(clip)))
        self.smoothing, self.scale = best.smoothing, best.scale(clip)
        found = self._trial(rows, weights, best.smoothing).errors(clip)
        self.errors = {p.node.name: error for p, error in zip(self.products, found, strict=True)}

    def _trial(self, rows: Sequence[Matrix], weights: Sequence[Matrix], smoothing: Matrix | None) -> "_Trial":
        pairs, outputs = [], []
        for p, x, w in zip(self.products, rows, weights, strict=True):
            outputs.append(x @ p.matrix(w))
            if smoothing is not None:
                x, w = x / smoothing, w * smoothing[:, None]
            pairs.append((x, p.matrix(dequantise(*quantise(w, p.output_axis), p.output_axis))))
        largest = float((self.largest if smoothing is None else self.largest / smoothing).max())
        return _Trial(smoothing, largest, pairs, outputs)

    def _smooth(self, weights: Sequence[Matrix], share: float) -> Matrix:
        weight = np.max([np.abs(w).max(axis=1) for w in weights], axis=0)
        return np.asarray(np.maximum(self.largest, 1e-5) ** share / np.maximum(weight, 1e-5) ** (1 - share), np.float32)


@dataclass(frozen=True)
class _Trial:
    """A way to quantise an activation, but for its scale."""

    smoothing: Matrix | None
    largest: float  # magnitude, after smoothing
    pairs: list[tuple[Matrix, Matrix]]  # of each product: rows of its input, and its weight as int8 has it
    outputs: list[Matrix]  # of each product, in float

    def scale(self, clip: float) -> float:
        """The scale that keeps this share of the largest magnitude."""
        return max(self.largest * clip / LEVELS, SMALLEST)

    def errors(self, clip: float) -> list[float]:
        """The error of each product's output, RMS over RMS."""
        scale, found = self.scale(clip), []
        for (x, matrix), expected in zip(self.pairs, self.outputs, strict=True):
            y = (np.clip(np.rint(x / scale), -LEVELS - 1, LEVELS) * scale) @ matrix
            found.append(float(np.linalg.norm(y - expected) / max(float(np.linalg.norm(expected)), SMALLEST)))
        return found


def quantise(weight: Matrix, axis: int, levels: int = WEIGHT_LEVELS) -> tuple[NDArray[np.int8], Matrix]:
    """Return a weight as integers in -levels..levels, and the scale of each of its channels along `axis`, (channels,)."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.maximum(largest / levels, SMALLEST).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale.ravel()


def dequantise(values: NDArray[np.int8], scale: Matrix, axis: int) -> Matrix:
    """Return the float weight for the values and scales that `quantise` returned."""
    shape = [1] * values.ndim
    shape[axis] = -1
    return values * scale.reshape(shape)


class _Graph(StageGraph):
    """A stage's graph, with what of it is quantised."""

    def activations(self) -> dict[str, _Activation]:
        """The tensors that products read, except those of the products that always stay in float."""
        sensitive = {node.name for node in (*self._first(), *self._last())}
        readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.proto.node:
            for name in node.input:
                readers[name].append(node)
        norms = {node.output[0]: node for node in self.proto.node if node.op_type == "LayerNormalization" and len(node.input) > 2}
        found = {}
        for name, nodes in readers.items():
            products = [
                _Product(node, node.input[1])
                for node in nodes
                if self._is_product(node) and node.input[0] == name and node.name not in sensitive
            ]
            if products:
                smooth = len(products) == len(nodes) and all(node.op_type == "MatMul" for node in nodes)
                found[name] = _Activation(products, norms.get(name) if smooth else None)
        return found

    def _is_product(self, node: NodeProto) -> bool:
        if node.op_type == "MatMul":
            return len(self.shape(node.input[1])) == 2
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        return node.op_type in ("Conv", "ConvTranspose") and groups == 1 and bool(self.shape(node.input[1]))

    def _first(self) -> Iterator[NodeProto]:
        """The products that follow a sensitive input with no other product between, and those of the sensitive parts."""
        free = {port.name for port in self.proto.input} & SENSITIVE_PORTS
        behind: set[str] = set()
        for node in self.proto.node:
            if self._is_product(node):
                if free.intersection(node.input) or any(part in node.input[1] for part in SENSITIVE_PARTS):
                    yield node
                behind.update(node.output)
            elif behind.intersection(node.input):
                behind.update(node.output)
            elif free.intersection(node.input):
                free.update(node.output)

    def _last(self) -> Iterator[NodeProto]:
        """The products that no other product separates from a sensitive output."""
        free = {port.name for port in self.proto.output} & SENSITIVE_PORTS
        for node in reversed(self.proto.node):
            if free.intersection(node.output):
                if self._is_product(node):
                    yield node
                else:
                    free.update(node.input)


def sample_photographs() -> list[Pixels]:
    """Return the colour photographs that scikit-image and scikit-learn ship.

    Raises:
        ExportError: one of them is not installed.
    """
    pixels = []
    for package, files in SAMPLE.items():
        found = find_spec(package)
        if found is None or found.origin is None:
            raise ExportError("int8 is calibrated on photographs: name a folder with --calibration, or pip install 'dlf[export]'")
        pixels += [load(Path(found.origin).parent / file) for file in files]
    return pixels


def prepare(bundle: Path, photographs: Sequence[Pixels], progress: Progress = UNSEEN) -> Converter:
    """Run the fp32 bundle over photographs, once, and return the converter of its stages.

    Each stage is calibrated on what the stages before it, with VQ and SQ, compute from the photographs. `progress` is told of
    the tiles of the photographs twice for each stage: while it runs, and while scales are chosen.
    """
    opened = Bundle(bundle)
    calibrated: dict[Path, dict[str, _Activation]] = {}
    arrays: list[Arrays] = [{"image": piece} for pixels in photographs for piece in _pieces(pixels)]
    for stage in STAGES:
        progress(f"calibrating {stage} on {len(arrays)} pieces of {len(photographs)} photographs")
        file = opened.stage(stage)
        calibrated[file], outputs = _calibrate(file, arrays, sum(map(tiles_of, photographs)), progress)
        arrays = [_quantised(opened.entropy, each) for each in outputs] if stage == "analysis" else outputs

    def convert(source: Path, target: Path, keep: Collection[str]) -> None:
        _convert(source, target, keep, calibrated[source])

    return convert


def _pieces(pixels: Pixels) -> Iterator[Matrix]:
    batch = pad_to_tiles(pixels)
    for top in range(0, batch.shape[2], TILE):
        for left in range(0, batch.shape[3], TILES_AT_ONCE * TILE):
            yield np.ascontiguousarray(batch[:, :, top : top + TILE, left : left + TILES_AT_ONCE * TILE])


def _quantised(entropy: EntropyModel, latents: Arrays) -> Arrays:
    """Return the quantised latents that the decoder gets, z_hat and y_hat, for an output of the analysis."""
    tiles = latents["z"].shape[:3]
    z_hat = entropy.vq_embed(entropy.vq_lookup(latents["z"].reshape(-1, entropy.codebook_dim, TOKENS_PER_TILE)))
    _, y_hat = entropy.encode_detail_with_reconstruction(latents["y"][0])
    return {"z_hat": z_hat.reshape(*tiles, entropy.codebook_dim, TOKENS_PER_TILE), "y_hat": y_hat[None]}


def _calibrate(
    file: Path, pieces: Sequence[Arrays], work: float = 0, progress: Progress = UNSEEN
) -> tuple[dict[str, _Activation], list[Arrays]]:
    """Return the activations of a stage, with their scales chosen, and the stage's outputs."""
    graph = _Graph(file)
    activations = graph.activations()
    ports = [port.name for port in graph.proto.output]
    graph.proto.output.extend(helper.make_empty_tensor_value_info(name) for name in activations if name not in ports)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(file.parent))
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    rng = np.random.default_rng(0)
    outputs = []
    for piece in pieces:
        tensors = dict(zip(names, session.run(names, piece), strict=True))
        for name, activation in activations.items():
            kernels = [graph.shape(product.weight)[2:] for product in activation.products]
            activation.observe(tensors[name], kernels, -(-ROWS // len(pieces)), rng)
        outputs.append({name: tensors[name] for name in ports})
        progress.advance(work / len(pieces))
    del session
    for activation in activations.values():
        activation.settle([graph.weight(product.weight) for product in activation.products])
        progress.advance(work / len(activations))
    if not activations:
        progress.advance(work)
    return activations, outputs


def _convert(source: Path, target: Path, keep: Collection[str], activations: Mapping[str, _Activation]) -> None:
    """Write the int8 form of the fp32 stage `source` to `target`, its weights beside it in `<target>.data`."""
    graph = _Graph(source)
    nodes = {node.name: node for node in graph.proto.node}
    before: dict[str, list[NodeProto]] = defaultdict(list)  # new nodes, by the name of the first that needs them
    tensors = [numpy_helper.from_array(np.array(0, np.int8), "zero")]
    for name, activation in activations.items():
        chosen = [p for p in activation.products if p.node.name not in keep and activation.errors[p.node.name] <= LARGEST_ERROR]
        if not chosen:
            continue
        smoothing = activation.smoothing
        if smoothing is not None and activation.norm is not None:
            if len(chosen) < len(activation.products):
                continue  # the products that stay in float would read a smoothed tensor
            norm = nodes[activation.norm.name]
            for i in (1, 2):
                tensors.append(numpy_helper.from_array(graph.weight(norm.input[i]) / smoothing, f"{norm.input[i]}.smooth"))
                norm.input[i] = tensors[-1].name
        quantised, scale = f"{name}.int8", f"{name}.scale"
        tensors.append(numpy_helper.from_array(np.array(activation.scale, np.float32), scale))
        before[chosen[0].node.name] += [
            helper.make_node("QuantizeLinear", [name, scale, "zero"], [quantised], f"{quantised}.node"),
            helper.make_node("DequantizeLinear", [quantised, scale, "zero"], [f"{name}.float"], f"{name}.float.node"),
        ]
        for product in chosen:
            node = nodes[product.node.name]
            node.input[0] = f"{name}.float"
            node.input[1] = f"{product.weight}.float"
            weight = graph.weight(product.weight)
            if smoothing is not None:
                weight = weight * smoothing[:, None]
            values, scales = quantise(weight, product.output_axis)
            stored, name_of_scale, restored = (f"{product.weight}.{what}" for what in ("int8", "scale", "float"))
            tensors += [numpy_helper.from_array(values, stored), numpy_helper.from_array(scales, name_of_scale)]
            before[node.name].append(
                helper.make_node(
                    "DequantizeLinear", [stored, name_of_scale], [restored], f"{restored}.node", axis=product.output_axis
                )
            )
    graph.save([new for node in graph.proto.node for new in (*before[node.name], node)], tensors, target)
