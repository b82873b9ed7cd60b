"""`dlf-bench --contact-sheet`: the right picture is in the right place; each has its own colour."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import dlf
from dlf.benchmarks import contact_sheet
from dlf.benchmarks.cli import app
from dlf.benchmarks.contact_sheet import CAPTION, CELL
from dlf.benchmarks.pictures import data_uri
from dlf.benchmarks.records import Coding, ImageResult, ModelResult, Report

COLOURS = {"original": (250, 10, 10), "dlf": (10, 250, 10), "avif": (10, 10, 250)}


def coding(codec: str) -> Coding:
    return Coding(codec, 100, 0.1, {"LPIPS-Alex": 0.25, "PSNR": 20.0})


def report(images: list[str]) -> Report:
    results = [ImageResult(name, "", 60, 40, {}, 0, codings=[coding("dlf"), coding("avif")]) for name in images]
    model = ModelResult("model", "", "", "", "", "", "", {}, results, [])
    return Report("", "", "", ["PSNR", "LPIPS-Alex"], {}, [model])


def flat(colour: tuple[int, int, int], scale: float = 1) -> str:
    return data_uri((np.ones((40, 60, 3)) * np.array(colour) * scale).astype(np.uint8))


def test_rows_are_images_and_columns_codecs(tmp_path):
    pictures = {
        "model": {
            "a.png": {codec: flat(colour) for codec, colour in COLOURS.items()},
            "b.png": {codec: flat(colour, 0.5) for codec, colour in COLOURS.items()},
        }
    }
    contact_sheet.write(report(["a.png", "b.png"]), pictures, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    assert sheet.shape == (2 * (CELL[1] + CAPTION), 3 * CELL[0], 3)
    for row, scale in enumerate((1, 0.5)):
        for column, colour in enumerate(COLOURS.values()):
            cell = sheet[row * (CELL[1] + CAPTION) :, column * CELL[0] :]
            assert np.abs(cell[CAPTION + 20, 30] - np.array(colour) * scale).max() < 6
            assert cell[:CAPTION, : CELL[0]].max() > 200  # a caption
            assert cell[CAPTION + 45, 70].max() == 0  # beside a picture, which is not enlarged


def test_images_without_pictures_are_left_out(tmp_path):
    pictures = {"model": {"a.png": {codec: flat(colour) for codec, colour in COLOURS.items()}}}
    contact_sheet.write(report(["a.png", "b.png"]), pictures, tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").height == CELL[1] + CAPTION


@pytest.fixture
def photo(tmp_path: Path, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image, and a model, in a folder in which the command runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLF_MODEL", str(toy_bundle))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (170, 180, 3), dtype=np.uint8)).save("a.png")
    return tmp_path / "a.png"


def bench(*arguments: str) -> int:
    return CliRunner().invoke(app, ["--dataset", "a.png", "--metrics", "psnr", "--repeats", "0", *arguments]).exit_code


def test_command_writes_the_sheet(photo, toy_bundle):
    assert bench("--rivals", "avif", "--contact-sheet", "sheet.png") == 0
    sheet = np.asarray(Image.open("sheet.png")).astype(int)
    assert sheet.shape == (CELL[1] + CAPTION, 3 * CELL[0], 3)
    codec = dlf.Codec(toy_bundle)
    decoded = codec.decode(codec.encode(photo)).astype(int)
    shown = sheet[CAPTION : CAPTION + 170, CELL[0] : CELL[0] + 180]
    assert np.abs(shown - decoded).mean() < 4  # WebP of quality 95 in between


@pytest.mark.parametrize("name", ["sheet.xyz", "sheet", "nowhere/sheet.png"])
def test_place_that_cannot_be_written_is_refused(photo, name):
    assert bench("--contact-sheet", name) == 2
