"""EXIF and XMP from a picture's file to a .dlf file and back to a picture's file."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from typer.testing import CliRunner, Result

import dlf
import dlf.pillow
from dlf.runtime.cli import app
from dlf.runtime.images import encode_as

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description tiff:Orientation=\"6\" dc:title='K\xc3\xa4se'/></x:xmpmeta>"
UPRIGHT_XMP = XMP.replace(b'"6"', b'"1"')


def exif(orientation: int = 6) -> Image.Exif:
    made = Image.Exif()
    made[ExifTags.Base.Orientation] = orientation
    made[ExifTags.Base.Artist] = "somebody"
    made.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return made


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


@pytest.fixture
def photo(tmp_path: Path, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DLF_MODEL", str(toy_bundle))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels()).save("photo.jpg", exif=exif(), xmp=XMP)
    return tmp_path / "photo.jpg"


def run(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(app, arguments, input=stdin)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_metadata_come_back_in_formats_that_hold_them(photo, suffix):
    source = photo.with_suffix(suffix)
    if suffix == ".png":
        source.write_bytes(encode_as(pixels(), ".png", kept=dlf.Metadata(exif().tobytes()[6:], XMP)))
    elif suffix == ".webp":
        Image.fromarray(pixels()).save(source, exif=exif(), xmp=XMP)
    assert run("encode", source.name, "-o", "kept.dlf", "--exif", "--xmp").exit_code == 0
    kept = dlf.read_metadata(Path("kept.dlf").read_bytes())
    assert kept.xmp == UPRIGHT_XMP
    assert run("decode", "kept.dlf", "-o", f"back{suffix}").exit_code == 0
    with Image.open(f"back{suffix}") as back:
        back.load()
        found = back.getexif()
        assert (found[ExifTags.Base.Orientation], found[ExifTags.Base.Artist]) == (1, "somebody")
        assert found.get_ifd(ExifTags.IFD.GPSInfo) == {ExifTags.GPS.GPSLatitudeRef: "N"}
        assert (back.info.get("xmp") or back.info.get("XML:com.adobe.xmp")) in (UPRIGHT_XMP, UPRIGHT_XMP.decode())
        assert back.size == (30, 40)  # turned once, and no more
        assert ImageOps.exif_transpose(back).size == (30, 40)


def test_nothing_is_kept_by_default(photo):
    assert run("encode", photo.name).exit_code == 0
    plain = photo.with_suffix(".dlf").read_bytes()
    assert dlf.read_metadata(plain) == dlf.Metadata()
    assert plain[1] >> 5 == 1
    for option, kept in (("--exif", (True, False)), ("--xmp", (False, True))):
        assert run("encode", photo.name, option, "--overwrite").exit_code == 0
        data = photo.with_suffix(".dlf").read_bytes()
        found = dlf.read_metadata(data)
        assert (bool(found.exif), bool(found.xmp)) == kept
        assert dlf.replace_metadata(data, dlf.Metadata()) == plain


def test_info_tells_what_is_kept(photo):
    data = run("encode", "-", "--exif", "--xmp", stdin=photo.read_bytes()).stdout_bytes
    kept, found = dlf.read_metadata(data), dlf.info(data)
    assert (found.version, found.exif, found.xmp) == (2, len(kept.exif), len(kept.xmp))
    assert found.bytes.metadata == len(kept.exif) + len(kept.xmp) + 2 * 6 + (len(kept.exif) > 128) + (len(kept.xmp) > 128)
    told = run("info", "-", stdin=data).stdout
    assert f", {found.bytes.metadata} metadata: EXIF {found.exif}, XMP {found.xmp}), " in told
    assert "metadata" not in run("info", "-", stdin=dlf.replace_metadata(data, dlf.Metadata())).stdout


def test_picture_is_the_same_with_metadata(photo, toy_bundle):
    codec = dlf.Codec(toy_bundle, threads=1)
    data = codec.encode(photo, metadata=dlf.metadata_of(photo))
    assert np.array_equal(codec.decode(data), codec.decode(codec.encode(photo)))
    assert np.array_equal(codec.decode(data, detail=False), codec.decode(codec.encode(photo), detail=False))
    assert dlf.metadata_of(photo) == dlf.metadata_of(Image.open(photo)) == dlf.metadata_of(BytesIO(photo.read_bytes()))
    assert dlf.metadata_of(pixels()) == dlf.Metadata()


def test_metadata_count_for_a_target(photo, toy_bundle, caplog):
    codec = dlf.Codec(toy_bundle, threads=1)
    size = len(codec.encode(photo, metadata=dlf.metadata_of(photo)))
    codec.encode(photo, metadata=dlf.metadata_of(photo), target_bytes=size)
    assert not caplog.records
    codec.encode(photo, metadata=dlf.metadata_of(photo), target_bytes=size - 1)
    assert f"the smallest has {size}" in caplog.text


def test_formats_without_metadata_get_the_picture_with_a_warning(photo):
    run("encode", photo.name, "--exif")
    result = run("decode", "photo.dlf", "-o", "back.bmp")
    assert result.exit_code == 0
    assert "metadata are left out: BMP files get none" in result.stderr
    assert Image.open("back.bmp").size == (30, 40)


def test_metadata_that_a_format_cannot_hold_are_left_out_with_a_warning(caplog):
    large = dlf.Metadata(b"II*\0" + bytes(65530))
    data = encode_as(pixels(), ".jpg", kept=large)
    assert data == encode_as(pixels(), ".jpg")
    assert "The metadata are left out: an image of 40x30 cannot be written as JPEG" in caplog.text
    assert len(encode_as(pixels(), ".png", kept=large)) > 65530


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        (b"XX*\0" + bytes(20), "does not begin as TIFF does"),
        (b"II*\0\xff\xff\0\0", "ends within its first directory"),
        (b"MM\0*\0\0\0\x08\0\x05" + bytes(12), "ends within its first directory"),
    ],
)
def test_damaged_exif_is_not_kept_and_costs_no_picture(photo, damaged, why, caplog):
    Image.fromarray(pixels()).save("damaged.png", exif=damaged)
    assert dlf.metadata_of("damaged.png") == dlf.Metadata()
    assert f"damaged.png: its EXIF cannot be read (it {why}), and is not kept" in caplog.text
    assert run("encode", "damaged.png", "--exif").exit_code == 0


@pytest.mark.parametrize("order", ["<", ">"])
def test_only_the_orientation_of_the_exif_changes(order, tmp_path):
    def tiff(orientation: int) -> bytes:
        head = b"II*\0" if order == "<" else b"MM\0*"
        entries = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack(f"{order}HHII", 0x0100, 4, 1, 7)
        return head + struct.pack(f"{order}IH", 8, 2) + entries + struct.pack(f"{order}I", 0) + b"maker's note"

    Image.fromarray(pixels()).save(tmp_path / "a.png", exif=tiff(8))
    assert dlf.metadata_of(tmp_path / "a.png").exif == tiff(1)


def test_too_much_is_refused(tmp_path, toy_bundle):
    Image.fromarray(pixels()).save(tmp_path / "a.png", exif=exif().tobytes() + bytes(70000))
    codec = dlf.Codec(toy_bundle, threads=1)
    with pytest.raises(dlf.SizeLimitError, match=r"its EXIF has \d+ bytes, over the limit of 65536; leave it out"):
        codec.encode(tmp_path / "a.png", metadata=dlf.metadata_of(tmp_path / "a.png"))


def test_what_is_no_image_has_no_metadata(tmp_path):
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(dlf.ImageError, match=r"a\.png: not an image"):
        dlf.metadata_of(tmp_path / "a.png")


def test_pillow_reads_and_writes_them(photo, toy_bundle):
    dlf.pillow.configure(toy_bundle, threads=1)
    with Image.open(photo) as image:
        image.save("none.dlf")
        image.save("kept.dlf", exif=image.getexif(), xmp=image.info["xmp"])
    assert dlf.read_metadata(Path("none.dlf").read_bytes()) == dlf.Metadata()
    with Image.open("kept.dlf") as kept:
        assert kept.info["xmp"] == UPRIGHT_XMP
        assert kept.getexif()[ExifTags.Base.Orientation] == 1
        assert kept.size == (30, 40)
    with pytest.raises(OSError, match="does not begin as TIFF does"):
        Image.fromarray(pixels()).save("bad.dlf", exif=b"nonsense")
    dlf.pillow.configure()
