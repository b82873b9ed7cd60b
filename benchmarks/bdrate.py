"""Bjontegaard delta rates between the codecs of a report, by the library `bjontegaard` (Akima interpolation)."""

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise

from dlf.benchmarks.records import OURS, BDRate, ModelResult

LOWER_IS_BETTER = {"LPIPS-Alex", "LPIPS-VGG", "DISTS"}
FEWEST_POINTS = 4
Curve = Sequence[tuple[float, float]]  # (bpp, metric) of each rate


def between(models: Sequence[ModelResult], metrics: Sequence[str]) -> list[BDRate]:
    """Return the BD-rates of the codec under test against each rival, by metric.

    One curve is made of models of several rates, the other of the rival at fixed qualities (measured with the first model). The
    list is empty if there are fewer than four models, or if they were not measured on the same images.
    """
    if (
        len(models) < FEWEST_POINTS
        or len({tuple(image.image for image in model.images) for model in models}) != 1
        or not models[0].images
    ):
        return []
    ours = [model.means(OURS) for model in models]
    found = []
    for metric in metrics:
        for rival, theirs in models[0].curves().items():
            anchor, test = ([(point["bpp"], point[metric]) for point in points] for points in (theirs, ours))
            percent = bd_rate(anchor, test, lower_is_better=metric in LOWER_IS_BETTER)
            found.append(BDRate(metric, OURS, rival, percent))
    return found


def bd_rate(anchor: Curve, test: Curve, lower_is_better: bool) -> float | None:
    """Return the mean rate of `test` over `anchor` at equal quality, in %; None if it is not defined.

    It is not defined for fewer than four distinct points, where quality does not rise with the rate, or without a shared quality.
    """
    sign = -1 if lower_is_better else 1
    curves = [sorted({(rate, sign * value) for rate, value in curve}) for curve in (anchor, test)]
    for curve in curves:
        if len(curve) < FEWEST_POINTS or any(a[1] >= b[1] for a, b in pairwise(curve)):
            return None
    import bjontegaard  # imports SciPy and Matplotlib

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small overlap: the plot shows it
        percent = bjontegaard.bd_rate(
            *zip(*curves[0], strict=True),
            *zip(*curves[1], strict=True),
            method="akima",
            require_matching_points=False,
            min_overlap=0,
        )
    return None if math.isnan(percent) else float(percent)
