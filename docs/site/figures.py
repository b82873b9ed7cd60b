"""The tables of measured figures in README.md and docs, from JSON in docs/figures: `python docs/site/figures.py [--check]`.

A table stands between two comments, of which the first says what is in it:

    <!-- quality kodak.json: bytes, bpp, PSNR -->       means of a report of dlf-bench, a row for each codec
    <!-- speed cpu.json: encode, decode, generator -->  seconds of directions and stages in a report of dlf.benchmarks.cpu, a
                                                        row for each peer, below a sentence that tells how they were measured
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

TABLE = re.compile(r"(<!-- (quality|speed) (\S+\.json): ([^\n]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)

# Digits of each mean.
DIGITS = {"bytes": 0, "bpp": 4, "PSNR": 2, "MS-SSIM": 3, "LPIPS-Alex": 3, "LPIPS-VGG": 3, "DISTS": 3}
CODECS = {"dlf": "dlf, built-in model", "avif": "AVIF", "webp": "WebP", "jxl": "JPEG XL", "jpeg": "JPEG"}
LIBRARIES = {"torch": "PyTorch", "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
PEERS = {**LIBRARIES, "torch": "PyTorch eager", "torch.compile": "torch.compile"}
TIMES = "times PyTorch eager"


def filled(page: str, figures: Path = FIGURES) -> str:
    """The text of a page with its tables made again from the reports in a folder."""

    def table(match: re.Match[str]) -> str:
        begin, kind, name, columns, end = match.groups()
        report = json.loads((figures / name).read_text())
        head, *rows = KINDS[kind](report, columns.split(", "))
        lines = ["| " + " | ".join(row) + " |\n" for row in (head, *rows)]
        told = f"{circumstances(report)}\n\n" if kind == "speed" else ""
        return "".join([begin, told, lines[0], "|---" * len(head) + "|\n", *lines[1:], end])

    return TABLE.sub(table, page)


def quality(report: dict[str, Any], columns: list[str]) -> Iterator[list[str]]:
    """The rows of a table of means over images: the columns' names, and each codec's figures."""
    yield ["means", *columns]
    (model,) = report["models"]
    for codec, means in model["means"].items():
        smallest = any(c["at_minimum"] for image in model["images"] for c in image["codings"] if c["codec"] == codec)
        label = CODECS.get(codec, codec) + (" at its smallest" if smallest else "")
        yield [label, *(f"{means[column]:.{DIGITS[column]}f}" for column in columns)]


def speed(report: dict[str, Any], columns: list[str]) -> Iterator[list[str]]:
    """The rows of a table of seconds: each peer's in the directions and stages that `columns` name, and in that of `TIMES` how
    many times PyTorch's speed it has in both directions together."""
    yield ["seconds", *columns]
    seconds: dict[tuple[str, str], dict[str, float]] = {}
    for result in report["results"]:
        found = seconds.setdefault((result["peer"], result["precision"]), {})
        found.update({result["direction"]: result["seconds"], **result["stages"]})
    eager = seconds["torch", "fp32"]
    for (name, precision), found in seconds.items():
        label = PEERS[name] if name.startswith("torch") else f"dlf on {PEERS[name]}, {precision}"
        times = f"{(eager['encode'] + eager['decode']) / (found['encode'] + found['decode']):.2f}"
        yield [label, *(times if column == TIMES else f"{found[column]:.3f}" for column in columns)]


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


KINDS = {"quality": quality, "speed": speed}


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
