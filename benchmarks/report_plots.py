"""The plots of the HTML report: SVG in the page's text colour, so that light and dark pages show it."""

import re
from io import StringIO
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlf.benchmarks.bdrate import LOWER_IS_BETTER
from dlf.benchmarks.records import OURS, Report, Speed, Timing

TEXT = "#010203"  # a placeholder, replaced in the SVG by the page's text colour
# Colour, marker, and the marker as a character. The colours can be told apart with any colour vision (after Okabe and Ito) and
# stand out on white and on black.
STYLES = {
    OURS: ("#d9541e", "o", "\u25cf"),
    "avif": ("#3d8fd1", "s", "\u25a0"),
    "webp": ("#009e73", "^", "\u25b2"),
    "jxl": ("#c879a6", "D", "\u25c6"),
    "jpeg": ("#b8860b", "v", "\u25bc"),
}
STEPS = {
    "encode": ("image", "analysis", "vq", "detail", "files"),
    "decode": ("vq", "detail", "synthesis", "adaptor", "generator", "image", "files"),
}
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "text.color": TEXT,
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 10,
}


def legend(report: Report) -> list[tuple[str, str, str]]:
    """(codec, colour, marker) of the codecs in the plots."""
    codecs = dict.fromkeys(codec for model in report.models for codec in model.codecs())
    return [(codec, STYLES[codec][0], STYLES[codec][2]) for codec in codecs]


def rate_quality(report: Report, metric: str) -> str:
    """Plot bpp against a metric: images faint, means strong, models of one codec joined, rivals' curves dashed."""
    with mpl.rc_context(_RC | {"svg.hashsalt": metric}):
        figure = Figure(figsize=(3.6, 3), layout="constrained")
        _rate_panel(figure.add_subplot(), report, metric)
        return _svg(figure, f"Bits per pixel against {metric}, by codec; the tables below hold the same figures.")


def waterfall(speed: Speed, timing: Timing) -> str:
    """Plot the median seconds of each step on one image, one after the other; all peers share an axis."""
    longest = max(sum(map(median, t.steps.values())) for t in speed.alone if t.direction == timing.direction)
    with mpl.rc_context(_RC | {"svg.hashsalt": timing.peer + timing.direction}):
        figure = Figure(figsize=(5.4, 2.4), layout="constrained")
        panel = figure.add_subplot()
        _steps(panel, timing, STYLES[OURS][0] if timing.peer == speed.peers[0] else "#808890")
        panel.set(xlabel="seconds, median", xlim=(0, 1.15 * longest))
        return _svg(figure, f"Seconds of each step: {timing.peer}, {timing.direction}; the table below holds the totals.")


def _rate_panel(panel: Axes, report: Report, metric: str) -> None:
    for codec, colour, _ in legend(report):
        marker = STYLES[codec][1]
        codings = [c for model in report.models for image in model.images for c in image.codings if c.codec == codec]
        panel.plot(
            [c.bpp for c in codings], [c.quality[metric] for c in codings], marker, color=colour, markersize=4, alpha=0.5, mew=0
        )
        means = sorted((m.means(codec)["bpp"], m.means(codec)[metric]) for m in report.models if codec in m.codecs())
        panel.plot(*zip(*means, strict=True), f"{marker}-", color=colour, markersize=8)
        for curve in (model.curves()[codec] for model in report.models if codec in model.curves()):
            panel.plot([point["bpp"] for point in curve], [point[metric] for point in curve], "--", color=colour, lw=1)
    if report.dataset == "kodak":
        rate = report.published["rate"]
        panel.axvspan(rate["lowest_bpp"], rate["highest_bpp"], color=TEXT, alpha=0.1, lw=0)
    panel.set(xscale="log", xlabel="bits per pixel")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.xaxis.set_minor_formatter(lambda value, _: f"{value:.2g}" if str(f"{value:.0e}")[0] in "25" else "")
    panel.tick_params(which="minor", labelsize=8)
    panel.set_title(f"{metric} ({'lower' if metric in LOWER_IS_BETTER else 'higher'} is better)", fontsize=10, loc="left")


def _steps(panel: Axes, timing: Timing, colour: str) -> None:
    steps = [step for step in STEPS[timing.direction] if step in timing.steps]
    seconds = [median(timing.steps[step]) for step in steps]
    starts = [sum(seconds[:i]) for i in range(len(steps))]
    panel.barh(steps, seconds, left=starts, color=colour)
    for step, start, length in zip(steps, starts, seconds, strict=True):
        panel.annotate(f"{length:.3g}", (start + length, step), (3, 0), textcoords="offset points", va="center", fontsize=8)
    panel.invert_yaxis()
    panel.set_title(f"{timing.peer}, {timing.direction}: {median(timing.warm):.3g} s", fontsize=10, loc="left")


def _svg(figure: Figure, description: str) -> str:
    file = StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(TEXT, "currentColor")
    svg = re.sub(r' id="[A-Za-z0-9.]+_[0-9]+"', "", svg)  # names such as axes_1, that no one refers to and every figure repeats
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)
