"""The report as one self-contained HTML page: plots, tables, and a viewer that compares two codecs' pictures."""

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from dlf.benchmarks import report_plots
from dlf.benchmarks.bdrate import LOWER_IS_BETTER
from dlf.benchmarks.measure import Pictures
from dlf.benchmarks.pictures import LONGEST_SIDE, MOST_IMAGES, QUALITY
from dlf.benchmarks.records import OURS, Coding, ImageResult, ModelResult, Report
from dlf.runtime.files import write_atomically


def write(report: Report, pictures: dict[str, dict[str, Pictures]], path: Path) -> None:
    """Write the page; `pictures` are data URIs by model, image and codec, as `run` returns them."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("dlf.benchmarks") / "report.html.j2").read_text())
    measured = [model for model in report.models if model.images]
    page = template.render(
        report=report,
        measured=measured,
        ours=OURS,
        most_pictures=MOST_IMAGES,
        longest_side=LONGEST_SIDE,
        webp_quality=QUALITY,
        lower_is_better=LOWER_IS_BETTER,
        legend=report_plots.legend(report),
        rate_plots=[Markup(report_plots.rate_quality(report, metric)) for metric in report.metrics if measured],
        waterfall=lambda speed, timing: Markup(report_plots.waterfall(speed, timing)),
        viewer=_viewer(report, pictures),
    )
    write_atomically(path, page.encode(errors="replace"))  # names of files may be no text


def _viewer(report: Report, pictures: dict[str, dict[str, Pictures]]) -> list[dict[str, object]]:
    """Return each image's pictures with their captions; the original first, then by model."""
    shown: dict[str, list[dict[str, object]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for model in report.models:
        for image in model.images:
            sources = pictures[model.model].get(image.image, {})
            if not sources:
                continue
            sizes[image.image] = (image.width, image.height)
            original: dict[str, object] = {
                "label": "original",
                "caption": f"{image.width}x{image.height} pixels",
                "src": sources["original"],
            }
            choices = shown.setdefault(image.image, [original])
            choices += [_picture(report, model, image, coding, sources[coding.codec]) for coding in image.codings]
    return [{"name": name, "size": sizes[name], "pictures": choices} for name, choices in shown.items()]


def _picture(report: Report, model: ModelResult, image: ImageResult, coding: Coding, source: str) -> dict[str, object]:
    label = f"{coding.codec}, {model.model}" if len(report.models) > 1 else coding.codec
    size = f"{coding.bytes} bytes"
    if coding.at_minimum:
        size += f", its smallest: {coding.bytes / image.codings[0].bytes:.1f} times ours"
    quality = ", ".join(f"{name} {value:.3f}" for name, value in coding.quality.items())
    return {"label": label, "caption": f"{size}, {coding.bpp:.4f} bpp; {quality}", "src": source}
