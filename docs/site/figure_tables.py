"""What tables a report of measured figures makes; `figures.py` puts them into the pages.

Each kind takes a report and the columns that a page asks for, and gives the table's rows, the head first.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

Rows: TypeAlias = Iterator[list[str]]

# Digits of each mean.
DIGITS = {"bytes": 0, "bpp": 4, "PSNR": 2, "MS-SSIM": 3, "LPIPS-Alex": 3, "LPIPS-VGG": 3, "DISTS": 3}
CODECS = {"dlf": "dlf, built-in model", "avif": "AVIF", "webp": "WebP", "jxl": "JPEG XL", "jpeg": "JPEG"}
LIBRARIES = {"torch": "PyTorch", "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
PEERS = {**LIBRARIES, "torch": "PyTorch eager", "torch.compile": "torch.compile"}
TIMES = "times PyTorch eager"
PEAKS = {"peak GB": "peak_bytes", "dropping stages GB": "peak_bytes_low_memory"}  # each as encode / decode
ABLATED = {
    "full": "the whole model",
    "interactive": "without interactive transforms",
    "detail": "without detail",
    "scalar": "detail by a codebook",
}
JUDGED = {
    "whole": "lpips_alexnet",
    "with the tokens of the tile before": "lpips_alexnet_tokens_swapped",
    "tokens alone": "lpips_alexnet_tokens_alone",
    "perplexity of the tokens": "token_perplexity",
}


def rows(report: dict[str, Any], columns: list[str]) -> Rows:
    """The rows that a report has, under `columns`; they were copied by hand, and the page tells how they were measured."""
    yield from ([*columns], *([str(cell) for cell in row] for row in report["rows"]))


def battery(report: dict[str, Any], columns: list[str]) -> Rows:
    """A row for each part of `make battery`: what it counted, and its seconds."""
    yield ["part", "figures", "seconds"]
    for part, result in report.items():
        if result["wrong"]:
            raise ValueError(f"{part} went wrong: {result['wrong'][0]}")
        figures = "; ".join(f"{name}: {figure}" for name, figure in result["figures"].items())
        yield [part, figures, f"{result['seconds']:.0f}"]


def quality(report: dict[str, Any], columns: list[str]) -> Rows:
    """The rows of a table of means over images: the columns' names, and each codec's figures."""
    yield ["means", *columns]
    (model,) = report["models"]
    for codec, means in model["means"].items():
        smallest = any(c["at_minimum"] for image in model["images"] for c in image["codings"] if c["codec"] == codec)
        label = CODECS.get(codec, codec) + (" at its smallest" if smallest else "")
        yield [label, *(f"{means[column]:.{DIGITS[column]}f}" for column in columns)]


def speed(report: dict[str, Any], columns: list[str]) -> Rows:
    """The rows of a table of seconds: each peer's in the directions and stages that `columns` name; in that of `TIMES` how many
    times PyTorch's speed it has in both directions together; in those of `PEAKS` its memory."""
    yield ["seconds", *columns]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    both: dict[tuple[str, str], float] = {}
    for result in report["results"]:
        peer = result["peer"], result["precision"]
        both[peer] = both.get(peer, 0.0) + result["seconds"]
        found = cells.setdefault(peer, {})
        seconds = {result["direction"]: result["seconds"], **result["stages"]}
        found.update({name: f"{value:.{3 if value < 10 else 2}f}" for name, value in seconds.items()})
        for name, field in PEAKS.items():
            peak = f"{result[field] / 1e9:.2f}" if result[field] else ""
            found[name] = f"{found[name]} / {peak}" if found.get(name) else peak
    eager = both["torch", "fp32"]
    for peer, found in cells.items():
        name, precision = peer
        label = PEERS[name] if name.startswith("torch") else f"dlf on {PEERS[name]}, {precision}"
        yield [label, *(f"{eager / both[peer]:.2f}" if column == TIMES else found[column] for column in columns)]


def started(report: dict[str, Any], columns: list[str]) -> Rows:
    """Seconds in a report of dlf-bench from the start of a process to its end: dlf's first result, and the medians of rivals that
    are commands; `columns` are directions."""
    yield ["seconds", *columns]
    (model,) = report["models"]
    cells: dict[str, dict[str, str]] = {}
    for timing in model["speed"]["timings"]:
        seconds = median(timing["warm"]) if timing["process_each"] else timing["cold"]
        cells.setdefault(timing["peer"], {})[timing["direction"]] = f"{seconds:.2f}"
    for peer, found in cells.items():
        yield [f"dlf on {LIBRARIES[peer]}" if peer in LIBRARIES else peer, *(found[column] for column in columns)]


def memory(report: dict[str, Any], columns: list[str]) -> Rows:
    """Megabytes in a report of dlf.benchmarks.memory, and in brackets what the manifest lets expect; `columns` are sizes, such
    as 512x512."""
    yield ["MB (expected)", *columns]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for peak in report["peaks"]:
        found = cells.setdefault((peak["backend"], peak["direction"]), {})
        found[f"{peak['side']}x{peak['side']}"] = f"{peak['bytes'] / 1e6:.0f} ({peak['expected'] / 1e6:.0f})"
    for (backend, direction), found in cells.items():
        yield [f"{LIBRARIES[backend]}, {direction}", *(found.get(column, "") for column in columns)]


def judged(report: dict[str, Any], columns: list[str]) -> Rows:
    """What `dlf.export.training.train judge` found of the built-in model."""
    yield ["LPIPS-Alex", *columns]
    figures = (report[JUDGED[column]] for column in columns)
    yield ["built-in model", *(f"{value:.3f}" if value < 10 else f"{value:.0f}" for value in figures)]


def ablation(report: dict[str, Any], columns: list[str]) -> Rows:
    """A row for each model of a report of dlf.benchmarks.ablation: the means over the images."""
    yield ["means", *columns]
    for one in report["means"]:
        means = {"bpp": one["bpp"], **one["metrics"]}
        yield [ABLATED[one["model"]], *(f"{means[column]:.{DIGITS[column]}f}" for column in columns)]


def circumstances(report: dict[str, Any]) -> str:
    """The sentence that tells how the seconds of a report were measured, and on which machine."""
    machine, results = report["machine"], report["results"]
    versions = {package: re.split("[-+]", version)[0] for each in results for package, version in each["versions"].items()}
    libraries = ", ".join(f"{name} {versions[package]}" for package, name in LIBRARIES.items() if package in versions)
    return (
        f"Seconds from file to file of {Path(report['image']).stem} ({report['width']}x{report['height']}), medians of "
        f"{len(results[0]['repeats'])}, {report['threads']} threads of {machine['cores']} cores, {machine['processor']} "
        f"({machine['vectors']}); {libraries}, dlf {machine['dlf']}, Python {machine['python']}:"
    )


KINDS = {
    "quality": quality,
    "speed": speed,
    "started": started,
    "memory": memory,
    "judged": judged,
    "ablation": ablation,
    "battery": battery,
    "rows": rows,
}
