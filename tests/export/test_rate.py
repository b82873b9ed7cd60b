"""A model's rate, measured on photographs and written into its manifest."""

import json
from pathlib import Path

import numpy as np
import pytest

import dlf
from dlf.export import rate
from dlf.runtime.bundles import models

PHOTOGRAPHS = [np.random.default_rng(side).integers(0, 256, (side, 2 * side, 3), dtype=np.uint8) for side in (40, 150)]


def test_rate_is_that_of_the_files_that_the_codec_writes(bundle_copy: Path) -> None:
    assert not rate.is_known(bundle_copy)
    before = json.loads((bundle_copy / "manifest.json").read_text())
    measured = rate.record(bundle_copy, PHOTOGRAPHS, threads=1)
    files = dlf.Codec(bundle_copy, "onnxruntime", threads=1).encode_many(PHOTOGRAPHS)
    assert measured == pytest.approx(8 * sum(map(len, files)) / (2 * 40**2 + 2 * 150**2), abs=1e-5)
    assert rate.is_known(bundle_copy)
    (model,) = models(bundle_copy).models
    assert model.bits_per_pixel == measured
    before["model"]["bits_per_pixel"] = measured
    assert json.loads((bundle_copy / "manifest.json").read_text()) == before
