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


def test_seconds_of_peers(figures, tmp_path):
    seconds = [("torch", "fp32", 1, 3), ("torch.compile", "fp32", 1, 1), ("openvino", "int8", 0.5, 1.5)]
    results = [
        {"peer": peer, "precision": precision, "direction": direction, "seconds": value}
        for peer, precision, *both in seconds
        for direction, value in zip(("encode", "decode"), both, strict=True)
    ]
    (tmp_path / "b.json").write_text(json.dumps({"results": results}))
    found = figures.filled("<!-- speed b.json -->\n<!-- end of figures -->", tmp_path).splitlines()[3:-1]
    assert found == [
        "| PyTorch eager | 1.000 | 3.000 | 1.00 |",
        "| torch.compile | 1.000 | 1.000 | 2.00 |",
        "| OpenVINO, int8 | 0.500 | 1.500 | 2.00 |",
    ]
