"""examples/desktop: the file type is recognised, and the thumbnail is one of the picture."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlf

DESKTOP = Path(__file__).parents[2] / "examples" / "desktop"


@pytest.fixture
def photo(toy_bundle: Path, tmp_path: Path) -> Path:
    (tmp_path / "photo.dlf").write_bytes(dlf.Codec(toy_bundle).encode(np.full((300, 520, 3), 90, np.uint8)))
    return tmp_path / "photo.dlf"


def test_file_tells_the_type_and_the_model(photo):
    if not shutil.which("file"):
        pytest.skip("file(1) is not installed")
    told = subprocess.run(["file", "-m", DESKTOP / "dlf.magic", photo], check=True, capture_output=True, text=True).stdout
    assert f"DLF image data, version 1, model {dlf.info(photo.read_bytes()).fingerprint}" in told
    mime = ["file", "--mime-type", "-m", DESKTOP / "dlf.magic", photo]
    assert "image/x-dlf" in subprocess.run(mime, check=True, capture_output=True, text=True).stdout


def test_shared_mime_info_takes_the_type(tmp_path):
    if not shutil.which("update-mime-database"):
        pytest.skip("update-mime-database is not installed")
    (tmp_path / "packages").mkdir()
    shutil.copy(DESKTOP / "dlf.xml", tmp_path / "packages")
    subprocess.run(["update-mime-database", tmp_path], check=True, capture_output=True)
    assert "image/x-dlf:*.dlf" in (tmp_path / "globs2").read_text()
    assert b"image/x-dlf" in (tmp_path / "magic").read_bytes()


def test_thumbnail(tmp_path):
    picture = np.zeros((256, 512, 3), np.uint8)
    picture[:, :256] = 220
    (tmp_path / "photo.dlf").write_bytes(dlf.Codec().encode(picture))
    script = DESKTOP / "dlf-thumbnail"
    subprocess.run([sys.executable, script, tmp_path / "photo.dlf", tmp_path / "small.png", "128"], check=True)
    small = np.asarray(Image.open(tmp_path / "small.png").convert("L"))
    assert small.shape == (64, 128)
    assert small[:, :56].mean() > small[:, 72:].mean() + 100
