"""Tables of measured figures: pages hold what the reports in docs/figures tell, and the tables are what a report says."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "site" / "figures.py"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    sys.path.insert(0, str(SCRIPT.parent))
    return import_module("figures")


def test_pages_hold_what_the_reports_tell():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_report_is_shown_and_names_no_folder_of_a_machine(figures):
    shown = {match[3] for page in figures.PAGES for match in figures.TABLE.finditer(page.read_text())}
    assert shown == {file.name for file in figures.FIGURES.glob("*.json")}
    for file in figures.FIGURES.glob("*.json"):
        text = file.read_text()
        assert not any(folder in text for folder in ('"/', "/home/", "/root/", "/tmp/", "/work/")), file.name


def test_means_of_codecs(figures, tmp_path):
    codings = [{"codec": "dlf", "at_minimum": False}, {"codec": "avif", "at_minimum": True}]
    means = {"dlf": {"bytes": 1671.6, "bpp": 0.034, "PSNR": 20.694}, "avif": {"bytes": 3183, "bpp": 0.0648, "PSNR": 25.6}}
    report = {"models": [{"means": means, "images": [{"codings": codings}]}]}
    (tmp_path / "a.json").write_text(json.dumps(report))
    begin, end = "<!-- quality a.json: bpp, PSNR, bytes -->\n", "<!-- end of figures -->"
    page = f"before\n{begin}| old |\n{end}\nafter"
    expected = (
        "| means | bpp | PSNR | bytes |\n|---|---|---|---|\n"
        "| dlf, built-in model | 0.0340 | 20.69 | 1672 |\n| AVIF at its smallest | 0.0648 | 25.60 | 3183 |\n"
    )
    assert figures.filled(page, tmp_path) == f"before\n{begin}{expected}{end}\nafter"
    assert figures.filled(figures.filled(page, tmp_path), tmp_path) == figures.filled(page, tmp_path)


def report_of_speed(*peers: tuple[str, str, float, float]) -> dict[str, object]:
    """A report of dlf.benchmarks.cpu: seconds of each peer's encode, which is its analysis, and decode, half the generator's."""
    of_stages = ({"encode": {"analysis": encode}, "decode": {"generator": decode / 2}} for *_, encode, decode in peers)
    results = [
        {
            **{"peer": peer, "precision": precision, "direction": direction, "seconds": value, "stages": stages[direction]},
            **{"repeats": [value] * 5, "versions": {peer.removesuffix(".compile"): f"{peer[0]}.1-a+b"}},
        }
        for (peer, precision, *both), stages in zip(peers, of_stages, strict=True)
        for direction, value in zip(("encode", "decode"), both, strict=True)
    ]
    machine = {"processor": "A Processor", "vectors": "AVX2", "cores": "2", "dlf": "0.1.0", "python": "3.11.7"}
    return {"machine": machine, "image": "kodim23.png", "width": 768, "height": 512, "threads": 3, "results": results}


def test_seconds_of_peers(figures, tmp_path):
    report = report_of_speed(("torch", "fp32", 1, 3), ("torch.compile", "fp32", 1, 1), ("openvino", "int8", 0.5, 1.5))
    (tmp_path / "b.json").write_text(json.dumps(report))
    columns = "encode, decode, times PyTorch eager, generator"
    page = f"before\n<!-- speed b.json: {columns} -->\n<!-- end of figures -->\nafter"
    found = figures.filled(page, tmp_path)
    assert found.splitlines()[2:-2] == [
        "Seconds from file to file of kodim23 (768x512), medians of 5, 3 threads of 2 cores, A Processor (AVX2); "
        "PyTorch t.1, OpenVINO o.1, dlf 0.1.0, Python 3.11.7:",
        "",
        "| seconds | encode | decode | times PyTorch eager | generator |",
        "|---|---|---|---|---|",
        "| PyTorch eager | 1.000 | 3.000 | 1.00 | 1.500 |",
        "| torch.compile | 1.000 | 1.000 | 2.00 | 0.500 |",
        "| dlf on OpenVINO, int8 | 0.500 | 1.500 | 2.00 | 0.750 |",
    ]
    assert figures.filled(found, tmp_path) == found


def test_a_report_of_speed_without_pytorch_fills_no_table(figures, tmp_path):
    (tmp_path / "b.json").write_text(json.dumps(report_of_speed(("openvino", "fp32", 1, 1))))
    with pytest.raises(KeyError, match="torch"):
        figures.filled("<!-- speed b.json: encode -->\n<!-- end of figures -->", tmp_path)
