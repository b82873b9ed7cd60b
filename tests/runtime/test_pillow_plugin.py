"""`dlf.pillow`: Pillow and imageio read and write .dlf files as the codec does."""

import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import dlf
import dlf.pillow

PICTURE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def model(toy_bundle: Path) -> Iterator[Path]:
    dlf.pillow.configure(toy_bundle)
    yield toy_bundle
    dlf.pillow.configure()


@pytest.fixture
def data(model: Path) -> bytes:
    return dlf.Codec(model).encode(PICTURE)


def test_open_decodes_as_the_codec_does(data, model, tmp_path):
    (tmp_path / "a.dlf").write_bytes(data)
    expected = dlf.Codec(model).decode(data)
    with Image.open(tmp_path / "a.dlf") as image:
        assert (image.format, image.mode, image.size) == ("DLF", "RGB", (40, 30))
        assert image.get_format_mimetype() == "image/x-dlf"
        assert image.info["dlf"] == dlf.info(data)
        assert np.array_equal(np.asarray(image), expected)
    assert np.array_equal(np.asarray(Image.open(BytesIO(data))), expected)


def test_size_is_read_without_a_model(data):
    dlf.pillow.configure("/nowhere")
    image = Image.open(BytesIO(data))
    assert image.size == (40, 30)
    with pytest.raises(OSError, match="nowhere"):
        image.load()


def test_save_encodes_as_the_codec_does(data, model, tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.dlf")
    Image.fromarray(PICTURE).convert("RGBA").save(tmp_path / "b.dlf", model=model, threads=1)
    assert (tmp_path / "a.dlf").read_bytes() == data
    assert (tmp_path / "b.dlf").read_bytes() == data


def test_model_stays_open(data, model, monkeypatch):
    opened = []
    monkeypatch.setattr(dlf, "Codec", lambda *arguments: opened.append(arguments) or codec)
    codec = sys.modules["dlf.runtime.codec"].Codec(model)
    dlf.pillow.configure(model, threads=7)  # as no other test
    for _ in range(3):
        Image.open(BytesIO(data)).load()
    assert opened == [(model, None, 7)]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda data: data[:-1], OSError),  # damaged
        (lambda data: b"\xdf\xa0" + data[2:], UnidentifiedImageError),  # of another version
        (lambda data: b"\xdf\x20\x00\x00\x80\x00" + data[6:], UnidentifiedImageError),  # a size that is none
    ],
)
def test_files_that_dlf_refuses(data, change, error):
    with pytest.raises(error):
        Image.open(BytesIO(change(data)))


def test_image_that_cannot_be_encoded_leaves_no_file(tmp_path):
    with pytest.raises(OSError, match="16384"):
        Image.new("RGB", (16385, 1)).save(tmp_path / "a.dlf")
    assert not (tmp_path / "a.dlf").exists()


def test_imageio_reads_through_pillow(data, model, tmp_path):
    iio = pytest.importorskip("imageio.v3")
    (tmp_path / "a.dlf").write_bytes(data)
    assert np.array_equal(iio.imread(tmp_path / "a.dlf"), dlf.Codec(model).decode(data))


def test_other_formats_are_not_touched():
    code = "import dlf.pillow, io; from PIL import Image; b = io.BytesIO(); Image.new('L', (3, 2)).save(b, 'PNG'); " + (
        "assert Image.open(b).format == 'PNG'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
