"""What a bundle takes of memory, measured and written into its manifest."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlf.benchmarks.speed import in_a_process
from dlf.benchmarks.speed_worker import Job
from dlf.export import memory
from dlf.runtime.bundles import builtin
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import ExportError, OutOfMemoryError


@pytest.mark.slow
def test_the_line_is_within_15_percent_of_the_peak_at_other_sizes(
    bundle_copy: Path, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "backends", lambda: [backend])
    memory.record(bundle_copy)
    measured = json.loads((bundle_copy / "manifest.json").read_text())["memory"][backend]
    for side, line in ((3 * 256, None), (3 * 256, "released"), (8 * 256, "large")):
        low_memory = line == "released"
        for direction in ("encode", "decode"):
            peak = memory.peak(bundle_copy, backend, direction, (side, side), tmp_path / f"{side}.dlf", low_memory=low_memory)
            found = measured[direction][line] if line else measured[direction]
            estimate = found["bytes"] + found["bytes_per_pixel"] * side**2
            assert abs(estimate - peak) <= 0.15 * peak
            Bundle(bundle_copy).check_memory(backend, direction, side, side, 1, int(estimate) + 1, low_memory=low_memory)
            if line:  # what is kept would be released
                with pytest.raises(OutOfMemoryError):
                    Bundle(bundle_copy).check_memory(backend, direction, side, side, 1, int(estimate) - 1, low_memory=low_memory)


@pytest.mark.slow
def test_images_after_the_first_take_no_more_than_it(backend: str, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (768, 1280, 3), dtype=np.uint8)).save(photo)
    for direction in ("encode", "decode"):
        first, fourth = (
            in_a_process(Job(backend, direction, 1, str(photo), str(builtin.path()), 1, repeats, str(tmp_path)))["peak_bytes"]
            for repeats in (0, 3)
        )
        assert fourth <= 1.1 * first


def test_a_bundle_that_does_not_run_is_told(bundle_copy: Path, backend: str, tmp_path: Path) -> None:
    (bundle_copy / "analysis.onnx").write_bytes(b"")
    with pytest.raises(ExportError, match=f"cannot encode 512x512 pixels on {backend}: .*analysis.onnx has 0 bytes"):
        memory.peak(bundle_copy, backend, "encode", (512, 512), tmp_path / "picture.dlf")
