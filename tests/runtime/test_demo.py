"""`dlf demo`: a photograph and what the codec makes of it, side by side."""

from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import dlf
from dlf.runtime.cli import app
from dlf.runtime.demo import PHOTOGRAPH


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy_bundle: Path) -> list[str]:
    """What was opened; there is a display."""
    found: list[str] = []
    monkeypatch.setattr(typer, "launch", found.append)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DLF_MODEL", str(toy_bundle))
    monkeypatch.chdir(tmp_path)
    return found


def test_both_pictures_are_shown_side_by_side(opened, toy_bundle):
    result = CliRunner().invoke(app, ["demo"])
    assert result.exit_code == 0
    original = np.asarray(Image.open(PHOTOGRAPH))
    picture = np.asarray(Image.open("demo/side-by-side.png"))
    assert np.array_equal(picture[:, :640], original)
    data = Path("demo/photo.dlf").read_bytes()
    assert np.array_equal(picture[:, 640:], dlf.Codec(toy_bundle).decode(data))
    assert f"640x427 pixels in {len(data)} bytes" in result.stderr
    assert opened == ["demo/side-by-side.png"]


def test_nothing_is_opened_without_a_display(opened, monkeypatch):
    monkeypatch.delenv("DISPLAY")
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save("a.png")
    assert CliRunner().invoke(app, ["demo", "a.png", "-o", "there/deep"]).exit_code == 0
    assert Image.open("there/deep/side-by-side.png").size == (60, 20)
    assert opened == []


@pytest.mark.parametrize(("arguments", "code"), [(["gone.png"], 1), (["--backend", "none"], 2), (["--model", "nowhere"], 1)])
def test_refusals(opened, arguments, code):
    assert CliRunner().invoke(app, ["demo", *arguments]).exit_code == code
    assert not Path("demo").exists()
