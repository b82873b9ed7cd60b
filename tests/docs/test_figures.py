"""Tables of measured figures: pages hold what the reports in docs/figures tell, and the tables are what a report says."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

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


def report_of_speed(*peers: tuple[str, str, float, float]) -> dict[str, Any]:
    """A report of dlf.benchmarks.cpu: seconds of each peer's encode, which is its analysis, and decode, half the generator's."""
    of_stages = ({"encode": {"analysis": encode}, "decode": {"generator": decode / 2}} for *_, encode, decode in peers)
    results = [
        {
            **{"peer": peer, "precision": precision, "direction": direction, "seconds": value, "stages": stages[direction]},
            **{
                "peak_bytes": 0,
                "peak_bytes_low_memory": 0,
                "repeats": [value] * 5,
                "versions": {peer.removesuffix(".compile"): f"{peer[0]}.1-a+b"},
            },
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


def table_of(figures: ModuleType, folder: Path, begin: str, report: dict[str, Any]) -> list[str]:
    """The lines of a table that a report fills, without the comments around it."""
    (folder / "c.json").write_text(json.dumps(report))
    page = f"<!-- {begin} -->\n<!-- end of figures -->"
    found = figures.filled(page, folder)
    assert figures.filled(found, folder) == found
    return found.splitlines()[1:-1]


def test_seconds_of_new_processes(figures, tmp_path):
    timings = [
        {"peer": peer, "direction": direction, "cold": cold, "warm": warm, "process_each": peer == "mbt2018"}
        for peer, direction, cold, warm in (
            ("openvino", "encode", 0.7, [0.1, 0.1, 0.1]),
            ("openvino", "decode", 1.3, [0.4, 0.4, 0.4]),
            ("mbt2018", "encode", 9.0, [7.0, 5.0, 6.0]),
            ("mbt2018", "decode", 9.0, [8.0, 8.5, 8.125]),
        )
    ]
    report = {"models": [{"speed": {"timings": timings}}]}
    assert table_of(figures, tmp_path, "started c.json: encode, decode", report) == [
        "| seconds | encode | decode |",
        "|---|---|---|",
        "| dlf on OpenVINO | 0.70 | 1.30 |",
        "| mbt2018 | 6.00 | 8.12 |",
    ]


def test_memory_of_backends(figures, tmp_path):
    peaks = [
        {"backend": backend, "direction": direction, "side": side, "bytes": bytes_, "expected": 2_000_000}
        for backend, direction, side, bytes_ in (
            ("openvino", "encode", 512, 1_400_000),
            ("openvino", "encode", 1024, 1_600_000),
            ("onnxruntime", "decode", 512, 3_000_000),
        )
    ]
    assert table_of(figures, tmp_path, "memory c.json: 512x512, 1024x1024", {"peaks": peaks}) == [
        "| MB (expected) | 512x512 | 1024x1024 |",
        "|---|---|---|",
        "| OpenVINO, encode | 1 (2) | 2 (2) |",
        "| ONNX Runtime, decode | 3 (2) |  |",
    ]


def test_peaks_in_a_table_of_speed(figures, tmp_path):
    report = report_of_speed(("torch", "fp32", 1, 3))
    for result, peak in zip(report["results"], (1e9, 2e9), strict=True):
        result |= {"peak_bytes": peak, "peak_bytes_low_memory": None}
    assert table_of(figures, tmp_path, "speed c.json: peak GB, dropping stages GB", report)[2:] == [
        "| seconds | peak GB | dropping stages GB |",
        "|---|---|---|",
        "| PyTorch eager | 1.00 / 2.00 |  |",
    ]


def test_what_tokens_tell(figures, tmp_path):
    report = {"lpips_alexnet": 0.41321, "lpips_alexnet_tokens_alone": 0.5, "token_perplexity": 171.4}
    assert table_of(figures, tmp_path, "judged c.json: tokens alone, whole, perplexity of the tokens", report) == [
        "| LPIPS-Alex | tokens alone | whole | perplexity of the tokens |",
        "|---|---|---|---|",
        "| built-in model | 0.500 | 0.413 | 171 |",
    ]


def test_parts_of_the_battery(figures, tmp_path):
    parts = {"damage": {"figures": {"files": 12, "accepted": 0}, "wrong": [], "seconds": 165.6}}
    assert table_of(figures, tmp_path, "battery c.json", parts) == [
        "| part | figures | seconds |",
        "|---|---|---|",
        "| damage | files: 12; accepted: 0 | 166 |",
    ]
    parts["damage"]["wrong"] = ["a file was accepted"]
    with pytest.raises(ValueError, match="damage went wrong: a file was accepted"):
        table_of(figures, tmp_path, "battery c.json", parts)


def test_rows_of_another_command(figures, tmp_path):
    report = {"command": "hey", "machine": "a machine", "rows": [["encode, 1", 8.7], ["decode", "1.6"]]}
    assert table_of(figures, tmp_path, "rows c.json: clients, images/s", report) == [
        "| clients | images/s |",
        "|---|---|",
        "| encode, 1 | 8.7 |",
        "| decode | 1.6 |",
    ]


def test_means_of_models_without_a_part(figures, tmp_path):
    means = [{"model": name, "bpp": bpp, "metrics": {"DISTS": 0.25}} for name, bpp in (("full", 0.035), ("detail", 0.0039))]
    (tmp_path / "f.json").write_text(json.dumps({"means": means}))
    found = figures.filled("<!-- ablation f.json: bpp, DISTS -->\n<!-- end of figures -->", tmp_path)
    assert found.splitlines()[1:-1] == [
        "| means | bpp | DISTS |",
        "|---|---|---|",
        "| the whole model | 0.0350 | 0.250 |",
        "| without detail | 0.0039 | 0.250 |",
    ]
