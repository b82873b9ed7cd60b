"""The built-in model, or a bundle, on each installed backend for the GPU: `dlf doctor`'s checks, and the time of a picture.

python -m dlf.benchmarks.gpu_check.engines [BUNDLE]
"""

import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import dlf
from dlf.benchmarks.gpu_check.codec import photograph
from dlf.benchmarks.gpu_check.findings import Findings, SkippedError, run_step
from dlf.runtime.backends import gpu_choice
from dlf.runtime.bundles import builtin
from dlf.runtime.doctor import examine
from dlf.runtime.gpu import driver

REPEATS = 20
HEIGHT, WIDTH = 512, 768


def check(findings: Findings, bundle: Path, device: str = "cuda") -> None:
    """Examine each backend, and time it if it passes."""
    lacks = {name: gpu_choice.missing(name) for name in gpu_choice.ON_GPU}
    if None not in lacks.values():
        raise SkippedError("; ".join(f"{name}: {lack}" for name, lack in lacks.items()))
    for name in (name for name, lack in lacks.items() if lack is None):
        report = examine(bundle, name, device=device)
        for each in report.checks:
            findings.add(f"{name}: {each.name}", each.passed, each.fact)
        if report.passed:
            findings.figures[name] = time(bundle, name, device)


def time(bundle: Path, backend: str, device: str) -> dict[str, float]:
    """Return the median milliseconds of encoding and decoding a picture of 768x512, after three of each."""
    picture = photograph(HEIGHT, WIDTH)
    with dlf.Codec(bundle, backend, device=device) as codec:
        data = codec.encode(picture)
        found = {}
        for name, work in (("encode", lambda: codec.encode(picture)), ("decode", lambda: codec.decode(data))):
            seconds = []
            for _ in range(3 + REPEATS):
                start = perf_counter()
                work()
                seconds.append(perf_counter() - start)
            found[f"{name}_ms"] = 1000 * median(seconds[3:])
    return found


def main(arguments: list[str]) -> int:
    """Run the step."""

    def work(findings: Findings) -> None:
        if (why := driver.missing()) is not None:
            raise SkippedError(why)
        check(findings, Path(arguments[0]) if arguments else builtin.path())

    return run_step(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
