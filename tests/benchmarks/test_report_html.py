"""The HTML report, also in a browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from dlf.benchmarks import pictures, report_html, report_plots
from dlf.benchmarks.records import BDRate, Coding, Gate, ImageResult, ModelResult, Report, Speed, Timing

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
COLOURS = {"original": (200, 20, 20), "dlf": (20, 160, 20), "avif": (20, 20, 200)}
PUBLISHED = {
    "note": "Published.",
    "source": "A paper",
    "rate": {"codec": "DLF", "dataset": "Kodak", "lowest_bpp": 0.008, "highest_bpp": 0.0156},
    "bd_rates": [{"codec": "DLF", "anchor": "MS-ILLM", "dataset": "Kodak", "metric": "LPIPS", "percent": -43.05}],
    "seconds": [{"codec": "PerCo", "dataset": "CLIC2020", "encode": 0.461, "decode": 2.443}],
}


def image(name: str) -> ImageResult:
    codings = [
        Coding("dlf", 700, 0.014, {"PSNR": 20.0, "DISTS": 0.1}),
        Coding("avif", 2100, 0.042, {"PSNR": 24.0, "DISTS": 0.3}, "quality 0", True),
    ]
    return ImageResult(name, "", 600, 400, {"header": 8, "tokens": 600, "detail": 90, "checksum": 2}, 0.25, codings)


def report() -> Report:
    timings = [
        Timing(
            peer,
            direction,
            batch,
            2.5,
            [1.0, 1.5],
            {step: [0.3, 0.4] for step in report_plots.STEPS[direction]},
            10**9,
            {peer: "1"},
        )
        for batch in (1, 4)
        for peer in ("openvino", "torch")
        for direction in ("encode", "decode")
    ]
    speed = Speed("<b>.png", 600, 400, 2, timings)
    images = [image("<b>.png"), image("second.png")]
    model = ModelResult("qp0", "qp0", "00ff", "", "openvino", "CPU", "fp32", {}, images, [], speed)
    machine = {"processor": "a CPU", "cores": "2", "memory": "1 GiB", "dlf": "0", "python": "3"}
    rates, gates = [BDRate("DISTS", "dlf", "avif", -50.0)], [Gate("max-bpp", 0.01, 0.014, False)]
    return Report("now", "dlf-bench", "kodak", ["PSNR", "DISTS"], machine, [model], rates, gates, ["A note."], PUBLISHED)


@pytest.fixture
def page(tmp_path):
    """The report with plain pictures, written to a file."""
    uris = {name: pictures.data_uri(np.full((400, 600, 3), colour, np.uint8)) for name, colour in COLOURS.items()}
    path = tmp_path / "report.html"
    report_html.write(report(), {"qp0": {"<b>.png": uris, "second.png": uris}}, path)
    return path


class _Links(HTMLParser):
    """Collects the addresses that the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "xlink:href") and value]


def test_the_page_needs_nothing_else(page):
    links = _Links()
    links.feed(page.read_text())
    assert all(link.startswith(("#", "data:")) for link in links.found)
    assert "@import" not in page.read_text() and "url(http" not in page.read_text()


def test_names_of_files_are_no_markup(page):
    assert "<b>" not in page.read_text()
    assert "&lt;b&gt;.png" in page.read_text()


def test_every_figure_is_there(page):
    text = re.sub(r"<[^>]*>", " ", page.read_text())
    for fact in (
        "8 + 600 + 90 + 2",
        "25 %",
        "0.0140",
        "FAILED",
        "-50.00",
        "2.443",
        "A note.",
        "(its smallest)",
        "avif*",
        "1.250",
        "1.00 times as fast",
        "3.2",
    ):
        assert fact in text, fact


def test_a_run_without_results_still_has_a_page(tmp_path):
    (model,) = report().models
    empty = replace(report(), models=[replace(model, images=[], speed=None)], bd_rates=[])
    report_html.write(empty, {"qp0": {}}, tmp_path / "empty.html")
    assert "Compare pictures" not in (tmp_path / "empty.html").read_text()


def test_plots_are_labelled_svg_in_the_pages_colour():
    speed = report().models[0].speed
    for svg in (report_plots.rate_quality(report(), "DISTS"), report_plots.waterfall(speed, speed.timings[0])):
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img" and root.get("aria-label")
        assert report_plots.TEXT not in svg and "currentColor" in svg
        ids = re.findall(r'\bid="([^"]*)"', svg)
        assert len(ids) == len(set(ids))
    labels = {"".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {*report_plots.STEPS["encode"], "openvino, encode: 1.25 s"} <= labels


# ------------------------------------------------------------------------------------------------------------- browser


def chromium(page, tmp_path, *options: str) -> str:
    if not BROWSER:
        pytest.skip("Chromium is not installed")
    quiet = [
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run([*command, *options, page.as_uri()], capture_output=True, text=True, check=True, timeout=120)
    return shown.stdout


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_shows_original_and_ours_side_by_side(page, tmp_path, theme):
    shot = tmp_path / "shot.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if theme == "dark" else []
    chromium(page, tmp_path, "--window-size=1000,900", "--hide-scrollbars", f"--screenshot={shot}", *dark)
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    page_is_dark = pixels[5, 5].mean() < 128
    assert page_is_dark == (theme == "dark")
    near = {name: np.abs(pixels - colour).max(axis=2) < 12 for name, colour in COLOURS.items()}
    columns = {name: np.nonzero(mask)[1] for name, mask in near.items()}
    assert near["original"].sum() > 50_000 and near["dlf"].sum() > 50_000
    assert columns["original"].max() < columns["dlf"].min()  # left of the bar, and right of it


def test_the_viewers_controls_work(page, tmp_path):
    script = """<script>
    const out = {};
    const note = name => { out[name] = [at("under").alt, at("over-caption").textContent,
                                        getComputedStyle(at("over")).clipPath, at("flick").getAttribute("aria-pressed")]; };
    note("first");
    out.ids = [...document.querySelectorAll("[id]")].map(element => element.id);
    at("image").selectedIndex = 1; at("image").dispatchEvent(new Event("change"));
    at("right").selectedIndex = 2; at("right").dispatchEvent(new Event("change"));
    at("split").value = 25; at("split").dispatchEvent(new Event("input"));
    note("second");
    at("flick").click(); note("flicker");
    out.shown = [...document.querySelectorAll(".captions .shown")].map(caption => caption.textContent);
    at("flick").click(); note("stopped");
    document.title = JSON.stringify(out);
    </script></body>"""
    page.write_text(page.read_text().replace("</body>", script))
    dom = chromium(page, tmp_path, "--dump-dom")
    found = json.loads(unescape(re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1]))
    assert found["first"][0].startswith("<b>.png: original, 600x400")
    assert found["first"][1].startswith("dlf: 700 bytes, 0.0140 bpp; PSNR 20.000")
    assert found["second"][0].startswith("second.png: original")
    assert "its smallest: 3.0 times ours" in found["second"][1]
    assert "25%" in found["second"][2]
    assert found["flicker"][3] == "true" and re.search(r"\b0(%|px)\)$|100%", found["flicker"][2])
    assert len(found["shown"]) == 1  # the caption of the picture that is on
    assert len(found["ids"]) == len(set(found["ids"]))
    assert found["stopped"][2:] == [found["second"][2], "false"]
