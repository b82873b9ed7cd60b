"""The tables of measured figures in README.md and docs, from JSON in docs/figures: `python docs/site/figures.py [--check]`.

A table stands between two comments, of which the first says what is in it:

    <!-- quality kodak.json: bytes, bpp, PSNR -->       means of a report of dlf-bench, a row for each codec
    <!-- speed cpu.json -->                             a report of dlf.benchmarks.cpu, a row for each peer
    <!-- end of figures -->

With --check nothing is written, and the exit code is 1 if a page would change.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "figures"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

TABLE = re.compile(r"(<!-- (quality|speed) (\S+\.json)(?:: ([^\n]+))? -->\n).*?(<!-- end of figures -->)", re.DOTALL)

# Digits of each mean.
DIGITS = {"bytes": 0, "bpp": 4, "PSNR": 2, "MS-SSIM": 3, "LPIPS-Alex": 3, "LPIPS-VGG": 3, "DISTS": 3}
CODECS = {"dlf": "dlf, built-in model", "avif": "AVIF", "webp": "WebP", "jxl": "JPEG XL", "jpeg": "JPEG"}
PEERS = {"torch": "PyTorch eager", "torch.compile": "torch.compile", "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}


def filled(page: str, figures: Path = FIGURES) -> str:
    """The text of a page with its tables made again from the reports in a folder."""

    def table(match: re.Match[str]) -> str:
        begin, kind, name, columns, end = match.groups()
        report = json.loads((figures / name).read_text())
        head, *rows = quality(report, columns.split(", ")) if kind == "quality" else speed(report)
        lines = ["| " + " | ".join(row) + " |\n" for row in (head, *rows)]
        return "".join([begin, lines[0], "|---" * len(head) + "|\n", *lines[1:], end])

    return TABLE.sub(table, page)


def quality(report: dict[str, Any], columns: list[str]) -> Iterator[list[str]]:
    """The rows of a table of means over images: the columns' names, and each codec's figures."""
    yield ["means", *columns]
    (model,) = report["models"]
    for codec, means in model["means"].items():
        smallest = any(c["at_minimum"] for image in model["images"] for c in image["codings"] if c["codec"] == codec)
        label = CODECS.get(codec, codec) + (" at its smallest" if smallest else "")
        yield [label, *(f"{means[column]:.{DIGITS[column]}f}" for column in columns)]


def speed(report: dict[str, Any]) -> Iterator[list[str]]:
    """The rows of a table of seconds: each peer's, and how many times PyTorch's speed it has in both directions together."""
    yield ["seconds", "encode", "decode", "both, times PyTorch eager"]
    seconds: dict[tuple[str, str], dict[str, float]] = {}
    for result in report["results"]:
        seconds.setdefault((result["peer"], result["precision"]), {})[result["direction"]] = result["seconds"]
    eager = seconds.get(("torch", "fp32"))
    for (peer, precision), found in seconds.items():
        label = PEERS[peer] if peer.startswith("torch") else f"{PEERS[peer]}, {precision}"
        times = f"{sum(eager.values()) / sum(found.values()):.2f}" if eager else ""
        yield [label, f"{found['encode']:.3f}", f"{found['decode']:.3f}", times]


def main(check: bool) -> int:
    """Fill the pages, or tell of those that are not as they would be filled; the exit code."""
    changed = [page for page in PAGES if filled(page.read_text()) != page.read_text()]
    for page in changed:
        print(f"{page.relative_to(ROOT)} {'is not what docs/figures tells; run: make figures' if check else 'filled'}")
        if not check:
            page.write_text(filled(page.read_text()))
    return int(check and bool(changed))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
