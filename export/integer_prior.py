"""Convert the four-part prior to integers at export: everything that the arithmetic coder depends on.

Weights become 8-bit integers with one scale for each output channel; activations are 16-bit, in steps of 1/256. The
scale, 2^-32 of an integer, and the bias are applied together in 64 bits. docs/format.md has the arithmetic.
"""

from importlib.resources import files

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlf.export.model import DLF
from dlf.export.model.config import SKIP_SCALE
from dlf.kernels.entropy_bin import BLOCKS, DepthBlock, EntropyTables, Layer
from dlf.runtime.errors import ExportError

UNIT = 256  # activation units in 1.0
SHIFT = 32  # of the requantisation
CDFS = 256
INT8, INT16 = np.iinfo(np.int8), np.iinfo(np.int16)
# The map at whose corners, borders and middle the tables of step 0 are read: any size from 5 on gives the same.
TABLE_SIDE = 9


def to_units(x: Tensor) -> NDArray[np.int16]:
    """Float activations in units of 1/256, saturated."""
    return np.clip(np.rint(x.double().numpy() * UNIT), INT16.min, INT16.max).astype(np.int16)


def quantise_layer(weight: Tensor, bias: Tensor, name: str) -> Layer:
    """A float convolution, weight (outputs, ...) and bias (outputs,), as integers.

    Raises:
        ExportError: an accumulator could overflow, or a weight or bias is too large (or not finite).
    """
    floats, biases = weight.double().flatten(1).numpy(), bias.double().numpy()
    if not (np.isfinite(floats).all() and np.isfinite(biases).all()):
        raise ExportError(f"{name}: a weight or bias is not finite")
    scale = np.abs(floats).max(1) / INT8.max
    w = np.rint(floats / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    m, b = np.rint(scale * 2**SHIFT), np.rint(biases * UNIT * 2.0**SHIFT) + 2.0 ** (SHIFT - 1)
    if (m >= 2**31).any() or (np.abs(b) > 2**62).any():
        raise ExportError(f"{name}: weights or biases are too large for the integer prior (largest {np.abs(floats).max():.3g})")
    # Inputs are in -2^15..2^15, so this bounds every partial sum of the accumulator.
    worst = 2**15 * int(np.abs(w.astype(np.int64)).sum(1).max())
    if worst >= 2**31:
        raise ExportError(f"{name}: the 32-bit accumulator could reach {worst}")
    return Layer(w=w, m=m.astype(np.int32), b=b.astype(np.int64))


def quantise_block(block: nn.Module, name: str) -> DepthBlock:
    """A float depth block as integers."""
    state = block.state_dict()
    layers = {
        "conv1": "block.0.conv1.0",
        "depth_conv": "block.0.depth_conv",
        "conv2": "block.0.conv2",
        "conv": "block.1.conv",
        "conv_out": "block.1.conv_out",
    }
    return DepthBlock(
        **{
            layer: quantise_layer(state[f"{key}.weight"], state[f"{key}.bias"], f"{name}.{layer}")
            for layer, key in layers.items()
        }
    )


def gaussian_frequencies() -> tuple[NDArray[np.uint16], ...]:
    """The authors' 256 CDFs as frequencies: values -c..c and the escape, with sum 65536.

    They are stored as data, because computing them again rounds some values differently.
    """
    with (files("dlf.export") / "data" / "gaussian_frequencies.npz").open("rb") as file:
        table = np.load(file)
        ends = np.cumsum(table["counts"])
        return tuple(np.split(table["frequencies"], ends[:-1]))


def cdf_indexes(scales: NDArray[np.float32]) -> NDArray[np.int16]:
    """The authors' CDF index of each float scale, in their float32 arithmetic; -1 where a symbol is not coded."""
    log_min, log_max = np.log(np.float32(0.11)), np.log(np.float32(64))
    step = np.float32((log_max - log_min) / np.float32(CDFS - 1))
    indexes = np.trunc((np.log(np.maximum(scales, np.float32(1e-5))) - log_min) / step)
    return np.where(scales < np.float32(SKIP_SCALE), -1, np.clip(indexes, 0, CDFS - 1)).astype(np.int16)


def scale_thresholds() -> NDArray[np.int16]:
    """For each CDF the smallest scale, in units, that is coded with this CDF or a later one."""
    units = np.arange(1, INT16.max + 1)
    indexes = cdf_indexes((units / UNIT).astype(np.float32))
    return units[np.searchsorted(indexes, np.arange(CDFS))].astype(np.int16)


def entropy_tables(model: DLF) -> EntropyTables:
    """Return the entropy model: everything but the stages that decoding depends on.

    Raises:
        ExportError: the prior's weights do not fit the integer format.
    """
    quantiser = model.hybrid_codec.quantize_feat
    with torch.no_grad():
        params = quantiser.prior_params(TABLE_SIDE, TABLE_SIDE)
        codebook = model.hybrid_codec.quantize.unit_vectors.numpy()
    classes = np.array([0, 1, TABLE_SIDE // 2, TABLE_SIDE - 2, TABLE_SIDE - 1])

    def table(x: Tensor) -> Tensor:
        return x[0][:, classes][:, :, classes]

    thresholds = scale_thresholds()
    scales = to_units(table(params.scales))
    floats = {
        **{f"adaptor_{k}": quantiser.get_submodule(f"y_spatial_prior_adaptor_{k}") for k in (1, 2, 3)},
        **{f"shared_{i}": block for i, block in enumerate(quantiser.y_spatial_prior)},
    }
    return EntropyTables(
        codebook=codebook,
        frequencies=gaussian_frequencies(),
        thresholds=thresholds,
        q=table(params.step_size).numpy(),
        indexes=(np.searchsorted(thresholds, scales, side="right") - 1).astype(np.int16),
        means=to_units(table(params.means)),
        common=to_units(table(params.common)),
        blocks=tuple(quantise_block(floats[name], name) for name in BLOCKS),
    )
