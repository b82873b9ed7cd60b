"""The integer prior: its tables agree with the float network, and nothing can overflow."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.entropy import VECTORS
from helpers.export import tiny_model
from torch import Tensor

from dlf.export.integer_prior import (
    CDFS,
    UNIT,
    cdf_indexes,
    entropy_tables,
    gaussian_frequencies,
    quantise_layer,
    scale_thresholds,
)
from dlf.export.model.scalar_quantiser import coded_mask
from dlf.kernels.entropy_params_reference import entropy_params
from dlf.runtime.errors import ExportError
from dlf.runtime.libdlf import EntropyModel


def test_frequencies_are_the_authors() -> None:
    with np.load(VECTORS) as vectors:
        expected = [np.diff(cdf[:length]) for cdf, length in zip(vectors["cdf"], vectors["cdf_length"], strict=True)]
    for ours, theirs in zip(gaussian_frequencies(), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_thresholds_are_the_float_formula_on_every_scale() -> None:
    units = np.arange(np.iinfo(np.int16).max + 1)
    by_threshold = np.searchsorted(scale_thresholds(), units, side="right") - 1
    np.testing.assert_array_equal(by_threshold, cdf_indexes((units / UNIT).astype(np.float32)))
    assert by_threshold[30] == -1  # 0.117 is below 0.12
    assert by_threshold[31] >= 0
    assert by_threshold[64 * UNIT] == CDFS - 1


@torch.no_grad()
def test_step_0_tables_hold_for_every_map_size() -> None:
    model = tiny_model()
    quantiser = model.hybrid_codec.quantize_feat
    entropy = EntropyModel(entropy_tables(model).to_bytes())
    for height, width in ((8, 8), (16, 8), (8, 40)):
        params = quantiser.prior_params(height, width)
        indexes, means = entropy.prior_step(0, np.zeros((quantiser.channels, height, width), np.int32))
        assert np.abs(means / UNIT - params.means[0].numpy()).max() <= 0.5 / UNIT
        rounded = np.rint(params.scales[0].double().numpy() * UNIT)
        np.testing.assert_array_equal(indexes, np.searchsorted(scale_thresholds(), rounded, side="right") - 1)


@torch.no_grad()
def test_later_steps_follow_the_float_prior() -> None:
    model = tiny_model()
    quantiser, tables = model.hybrid_codec.quantize_feat, entropy_tables(model)
    r = np.rint(np.random.default_rng(0).normal(0, 2, (quantiser.channels, 8, 16)) * UNIT).astype(np.int32)
    for step in (1, 2, 3):
        known = sum(coded_mask(k, *r.shape).numpy() for k in range(step)) * r
        _, means = quantiser.step_params(step, torch.from_numpy(known / UNIT)[None].float(), quantiser.prior_params(8, 16).common)
        _, integer_means = entropy_params(tables, step, known)
        error = np.abs(integer_means / UNIT - means[0].numpy())
        assert error.mean() < 0.02 * means.abs().mean()  # 8-bit weights: about half a per cent a layer


def layer(**change: Tensor) -> dict[str, Any]:
    return {"weight": torch.ones(2, 3, 1, 1), "bias": torch.zeros(2), "name": "layer", **change}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"weight": torch.full((2, 600, 1, 1), 0.1)}, "32-bit accumulator"),
        ({"weight": torch.full((2, 3, 1, 1), 64.0)}, "too large"),
        ({"bias": torch.full((2,), 2.0**23)}, "too large"),
        ({"weight": torch.full((2, 3, 1, 1), torch.nan)}, "not finite"),
        ({"bias": torch.full((2,), torch.inf)}, "not finite"),
    ],
)
def test_refuses_weights_that_do_not_fit(change: dict[str, Tensor], match: str) -> None:
    quantise_layer(**layer())
    with pytest.raises(ExportError, match=f"layer: .*{match}"):
        quantise_layer(**layer(**change))
