"""Bounds from the command line, so that continuous integration fails when rate, quality or speed get worse."""

from collections.abc import Sequence

from dlf.benchmarks.records import OURS, Gate, ModelResult, Speed


def judge(models: Sequence[ModelResult], max_bpp: float | None, max_lpips: float | None, min_speedup: float | None) -> list[Gate]:
    """Compare every given bound with the worst of the models; a model without a result fails.

    Rate and LPIPS-Alex are means over the images; the speed-up, over the first baseline on one image, is
    the smaller of the two directions'.
    """
    gates = []
    for name, bound, key in (("max-bpp", max_bpp, "bpp"), ("max-lpips", max_lpips, "LPIPS-Alex")):
        if bound is not None:
            found = max(model.means(OURS)[key] if model.images else float("inf") for model in models)
            gates.append(Gate(name, bound, found, found <= bound))
    if min_speedup is not None:
        found = min(_speedup(model.speed) if model.speed else 0.0 for model in models)
        gates.append(Gate("min-speedup", min_speedup, found, found >= min_speedup))
    return gates


def _speedup(speed: Speed) -> float:
    return min(speed.ratio(timing) for timing in speed.alone if timing.peer == speed.baselines[0])
