"""Run the parts of the battery, and print a table; `--json` writes the figures. Exit code 1 if anything was wrong."""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

from helpers.bundle import make_toy_bundle

from battery import agreement, damage, kills, mutations, soak, threads
from battery.result import Result

PARTS = {part.__name__.rsplit(".", 1)[-1]: part for part in (damage, mutations, kills, threads, agreement, soak)}


def main(arguments: list[str]) -> int:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m battery", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"Of {', '.join(PARTS)}; by default all.")
    parser.add_argument("--scale", type=float, default=1, help="How much of the full counts; by default 1.")
    parser.add_argument("--json", type=Path, help="Write every figure.")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    results: dict[str, Result] = {}
    for name in options.parts or PARTS:
        start = perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            bundle = make_toy_bundle(Path(folder) / "toy")
            result = results[name] = PARTS[name].run(options.scale, bundle, Path(folder))
        result.seconds = round(perf_counter() - start, 1)
        print(f"{name}: {'WRONG' if result.wrong else 'right'}, {result.seconds:.0f} s", flush=True)
        for what, figure in result.figures.items():
            print(f"    {what}: {figure}")
        for fact in result.wrong[:20]:
            print(f"    wrong: {fact}")
    if options.json:
        options.json.write_text(json.dumps({name: asdict(result) for name, result in results.items()}, indent=1) + "\n")
    return int(any(result.wrong for result in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
