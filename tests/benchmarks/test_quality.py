"""The quality record: means, file and contact sheet, with metrics that a test can foresee."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pytorch_msssim")

from dlf.benchmarks import metrics, quality


def compare(original: np.ndarray, decoded: np.ndarray) -> dict[str, float]:
    return dict.fromkeys(metrics.NAMES, float(np.abs(original.astype(int) - decoded).mean()))


def test_record_of_two_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "Metrics", lambda: compare)
    images = {"grey": np.full((40, 80, 3), 100, np.uint8), "dark": np.full((40, 80, 3), 10, np.uint8)}
    codecs: dict[str, quality.Trip] = {"exact": lambda x: (400, x), "off": lambda x: (200, x + np.uint8(2))}
    rows, sheet = quality.measure(images, codecs)
    quality.report(rows, sheet, tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert stored["means"]["exact"] == {"bpp": 1.0, **dict.fromkeys(metrics.NAMES, 0.0)}
    assert stored["means"]["off"] == {"bpp": 0.5, **dict.fromkeys(metrics.NAMES, 2.0)}
    assert [(row["image"], row["codec"]) for row in stored["images"]] == [
        ("grey", "exact"),
        ("grey", "off"),
        ("dark", "exact"),
        ("dark", "off"),
    ]
    assert (tmp_path / "out" / "contact_sheet.png").stat().st_size > 0
    assert sheet.width == 3 * round(quality.SHEET_HEIGHT * 1.5)


def test_the_avif_peer_decodes_what_it_wrote() -> None:
    pixels = np.tile(np.arange(0, 128, dtype=np.uint8)[:, None, None], (1, 96, 3))
    size, decoded = quality.avif_trip(pixels)
    assert 0 < size < 3000
    assert decoded.shape == pixels.shape
    assert metrics.psnr(pixels, decoded) > 20
