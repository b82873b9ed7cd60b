"""The pixel generator's upper levels as one operation of an OpenVINO model, computed by libdlf.

OpenVINO multiplies a 3x3 convolution out; libdlf does it by Winograd's method, in a quarter of the products, and keeps two maps
where OpenVINO keeps five or more. `replace` finds the levels by their structure, from the image backwards, as far as they
are what libdlf computes: residual blocks without attention, and upsampling. What lies below stays OpenVINO's. Of an int8 graph
the levels are computed in float32 too, from its weights and without its quantisation of maps: int8 would save little there, where
nearly all memory is maps, and cost much of what Winograd's method gains.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlf.runtime.backends import telemetry
from dlf.runtime.libdlf import library
from dlf.runtime.libdlf_abi import WinogradStep

with telemetry.off():
    import openvino


Array = NDArray[np.float32]

CHANNELS = 32  # every map's width is a multiple of it
FIRST, SECOND, SHORTCUT, UPSAMPLE, OUTPUT = range(5)  # as in runtime/native/src/winograd/winograd.cpp

# What doubling a map makes of the kernel (a, b, c) along an axis: (a, a + b, b + c, c).
DOUBLING = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]])
ROUNDING = 1e-5  # of float32, relative to the largest weight


@dataclass(frozen=True)
class Norm:
    """A GroupNorm before SiLU; gamma and beta by channel."""

    groups: int
    epsilon: float
    gamma: Array
    beta: Array


@dataclass(frozen=True)
class Step:
    """A convolution, weight (outputs, inputs, 3, 3) or of a SHORTCUT (outputs, inputs), and what stands before it."""

    kind: int
    weight: Array
    bias: Array
    norm: Norm | None = None

    def describe(self) -> WinogradStep:
        """For libdlf; points into the arrays of this object."""
        norm = self.norm
        return WinogradStep(
            self.kind,
            self.weight.shape[1],
            self.weight.shape[0],
            norm.groups if norm else 0,
            norm.epsilon if norm else 0.0,
            self.weight.ctypes.data,
            self.bias.ctypes.data,
            norm.gamma.ctypes.data if norm else None,
            norm.beta.ctypes.data if norm else None,
        )


def available() -> bool:
    """Whether libdlf has these kernels for this processor."""
    return library().dlf_winograd_isa() is not None


def run(steps: Sequence[Step], x: Array, threads: int) -> Array:
    """The steps on one map.

    Args:
        steps: a FIRST comes before its SECOND, a SHORTCUT between them; the last is the OUTPUT.
        x: (channels, height, width), C-contiguous; height and width multiples of 4, channels of `CHANNELS`.
        threads: how many work, at least 1.

    Returns:
        (outputs of the last step, height, width), twice the size for each UPSAMPLE.
    """
    factor = 2 ** sum(step.kind == UPSAMPLE for step in steps)
    channels, height, width = x.shape
    out = np.empty((steps[-1].weight.shape[0], height * factor, width * factor), np.float32)
    described = (WinogradStep * len(steps))(*(step.describe() for step in steps))
    if library().dlf_winograd_run(described, len(steps), x.ctypes.data, channels, height, width, out.ctypes.data, threads):
        raise MemoryError("The generator's upper levels")
    return out


class UpperLevels(openvino.Op):  # type: ignore[misc]
    """(n, channels, height, width) to (n, 3, factor * height, factor * width)."""

    def __init__(self, x: Any, steps: Sequence[Step], threads: int) -> None:
        super().__init__(self)
        self._steps, self._threads = steps, threads
        self.set_arguments([x])
        self.constructor_validate_and_infer_types()

    def validate_and_infer_types(self) -> None:
        """See `openvino.Op`."""
        shape = self.get_input_partial_shape(0)
        factor = 2 ** sum(step.kind == UPSAMPLE for step in self._steps)
        sides = [openvino.Dimension(side.get_length() * factor) if side.is_static else openvino.Dimension() for side in shape[2:]]
        out = openvino.PartialShape([shape[0], openvino.Dimension(self._steps[-1].weight.shape[0]), *sides])
        self.set_output_type(0, self.get_input_element_type(0), out)

    def clone_with_new_inputs(self, new_inputs: Any) -> "UpperLevels":
        """See `openvino.Op`."""
        return UpperLevels(new_inputs[0], self._steps, self._threads)

    def evaluate(self, outputs: Any, inputs: Any) -> bool:
        """See `openvino.Op`."""
        for image, x in zip(outputs[0].data, inputs[0].data, strict=True):
            image[:] = run(self._steps, x, self._threads)
        return True

    def has_evaluate(self) -> bool:
        """See `openvino.Op`."""
        return True


def replace(model: Any, threads: int | None) -> bool:
    """Put the operation in the place of the upper levels of a generator, if `model` is one and they are as wanted.

    Args:
        model: an `openvino.Model`, changed in place.
        threads: CPU threads; None for one a core that this process may use.

    Returns:
        Whether it was done. Such a model is not to be compiled with threads pinned to cores: those that libdlf starts would
        all be on the core of the one that calls it.
    """
    if not available() or len(model.inputs) != 1 or len(model.outputs) != 1:
        return False
    convolutions = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]
    if not convolutions:
        return False
    readers = (port.get_node() for port in convolutions[-1].output(0).get_target_inputs())
    last = next((node for node in readers if _is(node, "Add")), None)
    found = None if last is None else _activated(last)
    if last is None or found is None:
        return False
    x, step = found
    steps = [step]
    while (found_below := _block(x) or _upsampling(x)) is not None:
        x, below = found_below
        steps[:0] = below
    if len(steps) == 1:
        return False
    ports = last.output(0).get_target_inputs()
    op = UpperLevels(x.output(0), steps, threads or len(os.sched_getaffinity(0)))
    for port in ports:
        port.replace_source_output(op.output(0))
    model.validate_nodes_and_infer_types()
    return True


def _inputs(node: Any) -> list[Any]:
    return [port.get_source_output().get_node() for port in node.inputs()]


def _is(node: Any, kind: str) -> bool:
    return bool(node.get_type_name() == kind)


def _constant(node: Any) -> Array | None:
    """Its values, be they stored in 32 bits, in 16, or in 8 with scales."""
    if _is(node, "Multiply"):
        values, scales = (_constant(each) for each in _inputs(node))
        return None if values is None or scales is None else values * scales
    if _is(node, "Reshape"):  # of scales
        values = _constant(_inputs(node)[0])
        return None if values is None else values.reshape(node.get_output_shape(0))
    if _is(node, "Convert"):
        (node,) = _inputs(node)
    return np.ascontiguousarray(node.data, np.float32) if _is(node, "Constant") else None


def _unquantised(node: Any) -> Any:
    """A map, or what it is before it passes through QuantizeLinear and DequantizeLinear, as OpenVINO reads them."""
    below = node
    for kind in ("Multiply", "Subtract", "Convert", "Convert", "FakeQuantize"):
        if not _is(below, kind):
            return node
        below = _inputs(below)[0]
    return below


def _biased(node: Any, kind: str) -> tuple[Any, Array, Array] | None:
    """What goes into a convolution, its weight and its bias."""
    if not _is(node, "Add"):
        return None
    conv, bias = _inputs(node)
    if not _is(conv, kind) or not _is(bias, "Reshape"):
        return None
    x, weight = _inputs(conv)[:2]
    values, biases = _constant(weight), _constant(_inputs(bias)[0])
    return None if values is None or biases is None else (_unquantised(x), values, biases)


def _norm(node: Any) -> tuple[Any, Norm] | None:
    """What goes into a SiLU of a GroupNorm, as the exporter writes it: an InstanceNormalization of (n, groups, rest)."""
    if not _is(node, "Multiply"):
        return None
    normed, sigmoid = _inputs(node)
    if not _is(sigmoid, "Sigmoid") or not _is(normed, "Add"):
        return None
    scaled, beta = _inputs(normed)
    if not _is(scaled, "Multiply"):
        return None
    back, gamma = _inputs(scaled)
    if not _is(back, "Reshape"):
        return None
    instance = _inputs(back)[0]
    mvn = _inputs(_inputs(instance)[0])[0] if _is(instance, "Add") else instance
    values = _constant(gamma), _constant(beta)
    if not _is(mvn, "MVN") or values[0] is None or values[1] is None:
        return None
    groups = mvn.get_output_partial_shape(0)[1].get_length()
    epsilon = float(mvn.get_attributes()["eps"])
    return _inputs(_inputs(mvn)[0])[0], Norm(groups, epsilon, values[0].reshape(-1), values[1].reshape(-1))


def _activated(node: Any, kind: int = OUTPUT) -> tuple[Any, Step] | None:
    """What goes into a 3x3 convolution of a normed and activated map, and the step."""
    conv = _biased(node, "Convolution")
    if conv is None or conv[1].shape[2:] != (3, 3) or conv[1].shape[1] % CHANNELS:
        return None
    if kind != OUTPUT and conv[1].shape[0] % CHANNELS:
        return None
    norm = _norm(conv[0])
    return norm and (norm[0], Step(kind, conv[1], conv[2], norm[1]))


def _block(node: Any) -> tuple[Any, list[Step]] | None:
    """What goes into a residual block, and its steps."""
    if not _is(node, "Add"):
        return None
    for residual, out in (_inputs(node), _inputs(node)[::-1]):
        second = _activated(out, SECOND)
        first = second and _activated(second[0], FIRST)
        if not second or not first:
            continue
        x, steps = first[0], [first[1]]
        shortcut = _biased(residual, "Convolution")
        if shortcut is not None and shortcut[1].shape[2:] == (1, 1):
            steps.append(Step(SHORTCUT, np.ascontiguousarray(shortcut[1][:, :, 0, 0]), shortcut[2]))
            residual = shortcut[0]
        if residual == x or residual.get_friendly_name() == x.get_friendly_name():
            return x, [*steps, second[1]]
    return None


def _upsampling(node: Any) -> tuple[Any, list[Step]] | None:
    """What goes into a doubling with a 3x3 convolution after it, which the exporter makes one transposed convolution."""
    conv = _biased(node, "ConvolutionBackpropData")
    if conv is None or conv[1].shape[2:] != (4, 4) or conv[1].shape[0] % CHANNELS or conv[1].shape[1] % CHANNELS:
        return None
    weight, error = _undoubled(conv[1])
    if error > ROUNDING * np.abs(conv[1]).max() + _rounding(_inputs(_inputs(node)[0])[1]):
        return None  # another transposed convolution
    flipped: Array = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3), np.float32)
    return conv[0], [Step(UPSAMPLE, flipped, conv[2])]


def _undoubled(kernel: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
    """The 3x3 kernel that doubling makes a 4x4 kernel of, as nearly as there is one, and how far off that is at most."""
    inverse = np.linalg.pinv(DOUBLING)
    found = _along(_along(kernel, inverse, 2), inverse, 3)
    return found, float(np.abs(_along(_along(found, DOUBLING, 2), DOUBLING, 3) - kernel).max())


def _along(kernel: NDArray[Any], matrix: NDArray[Any], axis: int) -> NDArray[np.float64]:
    """The products of a matrix with the vectors along an axis."""
    return np.moveaxis(np.tensordot(matrix, kernel, (1, axis)), 0, axis)


def _rounding(weight: Any) -> float:
    """How far rounding to int8 may take the elements of a doubled kernel from the nearest that is one.

    Each was moved by half a step at most. What is left of it beside the doubled kernels is, along an axis, Q e with
    Q = n n^T / 4 and n = (1, -1, 1, -1); along both, Q e + (1 - Q) e Q, whose row sums are at most 1 and 1.5.
    """
    scales = _constant(_inputs(weight)[1]) if _is(weight, "Multiply") else None
    return 0.0 if scales is None else 2.5 * 0.5 * float(scales.max())
