"""Models with and without a part, on the same images: the rate that is reported, and the table."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.export.training.test_train import TINY
from typer.testing import CliRunner

from dlf.benchmarks.ablation import app, code
from dlf.export.checkpoint import GROUPS_KEY
from dlf.export.training.ablation import Part, ablated, silence

TOKENS = 32 * 4 / 256**2  # bits per pixel of a tile, at 16 entries


@pytest.mark.parametrize("part", [Part.DETAIL, Part.SCALAR])
def test_the_rate_is_that_of_whole_tiles_over_the_pixels_of_the_image(part: Part) -> None:
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    model = ablated(TINY, part)
    if part is Part.DETAIL:
        silence(model)
    bpp, decoded = code(model, pixels)
    detail = {Part.DETAIL: 0.0, Part.SCALAR: 64 * 4 * 8 / 256**2}[part]
    assert bpp == pytest.approx((TOKENS + detail) * (256 * 512) / (200 * 300), rel=1e-4)
    assert decoded.shape == (200, 300, 3) and decoded.dtype == np.uint8


def test_the_report_has_a_line_for_each_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "image.png")
    files = []
    for part in (None, Part.DETAIL):
        files.append(tmp_path / str(part) / "codec.safetensors")
        files[-1].parent.mkdir()
        model = ablated(TINY, part)
        if part:
            silence(model)
        save_file(model.state_dict(), files[-1], {GROUPS_KEY: "2"})
    report = tmp_path / "ablation.json"
    options = ["--dataset", str(tmp_path / "image.png"), "--metrics", "PSNR", "--json", str(report)]
    result = CliRunner().invoke(app, [*map(str, files), *options])
    assert result.exit_code == 0, result.output
    whole, silent = json.loads(report.read_text())["means"]
    assert (whole["model"], silent["model"]) == ("None", "detail")
    assert silent["bpp"] == pytest.approx(TOKENS * 16, rel=1e-4)
    assert whole["bpp"] > silent["bpp"]
    assert set(silent["metrics"]) == {"PSNR"} and 0 < silent["metrics"]["PSNR"] < 30
