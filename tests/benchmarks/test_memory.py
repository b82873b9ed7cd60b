"""What a bundle takes of memory beside what its manifest lets expect."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dlf.benchmarks.memory import expected
from dlf.export import memory
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import OutOfMemoryError

LINES = {"bytes": 100_000_000, "bytes_per_pixel": 300.5, "large": {"bytes": 200_000_000, "bytes_per_pixel": 100.0}}
MEASURED = {"openvino": dict.fromkeys(memory.DIRECTIONS, LINES)}


@pytest.mark.parametrize("side", [256, 768, 1024, 2048])
def test_what_is_expected_is_what_libdlf_refuses_above(bundle_copy: Path, side: int) -> None:
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    (bundle_copy / "manifest.json").write_text(json.dumps({**manifest, "memory": MEASURED}))
    bundle = Bundle(bundle_copy)
    taken = expected(bundle.manifest["memory"], "openvino", "decode", side**2)
    bundle.check_memory("openvino", "decode", side, side, 1, taken + 1)
    with pytest.raises(OutOfMemoryError):
        bundle.check_memory("openvino", "decode", side, side, 1, taken - 1)


def test_a_report_has_each_backend_and_direction(bundle_copy: Path, tmp_path: Path) -> None:
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    line = {"bytes": 1e8, "bytes_per_pixel": 1.0}
    lines = {direction: {**line, "large": line} for direction in memory.DIRECTIONS}
    backends = memory.backends()
    (bundle_copy / "manifest.json").write_text(json.dumps({**manifest, "memory": dict.fromkeys(backends, lines)}))
    command = [sys.executable, "-m", "dlf.benchmarks.memory", bundle_copy, "--sizes", "256", "--json", tmp_path / "memory.json"]
    subprocess.run(command, check=True, capture_output=True)
    peaks = json.loads((tmp_path / "memory.json").read_text())["peaks"]
    assert [(peak["backend"], peak["direction"]) for peak in peaks] == [(b, d) for b in backends for d in memory.DIRECTIONS]
    assert all(peak["side"] == 256 and peak["expected"] == 100_065_536 and peak["bytes"] > 1e7 for peak in peaks)
