"""The tables of measured figures in README.md and docs, from JSON in docs/figures: `python docs/site/figures.py [--check]`.

A table stands between two comments, of which the first says what is in it:

    <!-- quality kodak.json: bytes, bpp, PSNR -->       means of a report of dlf-bench, a row for each codec
    <!-- speed cpu.json: encode, decode, generator -->  seconds of directions and stages in a report of dlf.benchmarks.cpu, a
                                                        row for each peer, below a sentence that tells how they were measured
    <!-- started rivals.json: encode, decode -->        seconds of new processes in a report of dlf-bench, of dlf and its rivals
    <!-- memory memory.json: 512x512, 1024x1024 -->    peaks in a report of dlf.benchmarks.memory
    <!-- judged judged.json: whole, tokens alone -->    what the training's `judge` found
    <!-- battery battery.json -->                       a report of `make battery`
    <!-- rows serve.json: clients, images/s -->         the `rows` that are copied by hand from what another command printed;
                                                        the report names it and the machine
    <!-- end of figures -->

With --check nothing is written, and the exit code is 1 if a page would change.
"""

import json
import re
import sys
from pathlib import Path

from figure_tables import KINDS, circumstances

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "figures"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

TABLE = re.compile(rf"(<!-- ({'|'.join(KINDS)}) (\S+\.json)(?:: ([^\n]+))? -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def filled(page: str, figures: Path = FIGURES) -> str:
    """The text of a page with its tables made again from the reports in a folder."""

    def table(match: re.Match[str]) -> str:
        begin, kind, name, columns, end = match.groups()
        report = json.loads((figures / name).read_text())
        head, *rows = KINDS[kind](report, columns.split(", ") if columns else [])
        lines = ["| " + " | ".join(row) + " |\n" for row in (head, *rows)]
        told = f"{circumstances(report)}\n\n" if kind == "speed" else ""
        return "".join([begin, told, lines[0], "|---" * len(head) + "|\n", *lines[1:], end])

    return TABLE.sub(table, page)


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
