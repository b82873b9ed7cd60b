import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

import dlf
from dlf.runtime import images

LIMITS = dlf.Limits()


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG file, for the kinds that Pillow does not write; `rows` is raw data, a filter byte before each row."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# ------------------------------------------------------------------------------------------------------------ arrays


def test_colour_array_is_taken_as_it_is(picture):
    assert np.array_equal(images.load(picture, LIMITS), picture)


def test_gray_array_becomes_three_equal_channels(picture):
    gray = picture[:, :, 0]
    assert np.array_equal(images.load(gray, LIMITS), np.stack([gray, gray, gray], axis=-1))


def test_view_with_strides_is_taken(picture):
    assert np.array_equal(images.load(picture[::-1, ::2], LIMITS), picture[::-1, ::2].copy())


@pytest.mark.parametrize(
    ("array", "fact"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 3), np.uint16), "uint16"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((3, 4, 4, 3), np.uint8), r"\(3, 4, 4, 3\)"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 0), np.uint8), "no pixels"),
    ],
)
def test_arrays_that_are_no_picture_are_refused(array, fact):
    with pytest.raises(dlf.ImageError, match=fact):
        images.load(array, LIMITS)


@pytest.mark.parametrize("thing", [b"bytes", None, [[1, 2]], 3])
def test_other_things_are_refused(thing):
    with pytest.raises(dlf.ImageError, match="a path"):
        images.load(thing, LIMITS)


# ------------------------------------------------------------------------------------------------- files and Pillow


def test_path_and_binary_file_and_pillow_image_are_the_same(picture, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    with path.open("rb") as file:
        for source in (path, str(path), file, BytesIO(path.read_bytes()), Image.open(path)):
            assert np.array_equal(images.load(source, LIMITS), picture)


def test_palette_and_one_bit_are_converted(picture):
    colours = np.array([[255, 0, 0], [0, 128, 0], [1, 2, 3]], np.uint8)
    indexes = picture[:, :, 0] % 3
    palette = Image.fromarray(indexes)
    palette.putpalette(colours.tobytes())
    assert palette.mode == "P"
    assert np.array_equal(images.load(palette, LIMITS), colours[indexes])
    bits = Image.fromarray(picture[:, :, 0] > 127)
    assert np.array_equal(images.load(bits, LIMITS)[:, :, 1], np.where(picture[:, :, 0] > 127, 255, 0))


def test_cmyk_is_converted():
    red = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    assert np.array_equal(images.load(red, LIMITS), np.full((2, 2, 3), (255, 0, 0), np.uint8))


def test_sixteen_bit_gray_is_scaled_to_eight():
    values = np.arange(0, 65536, 13, dtype=np.uint16).reshape(1, -1)
    file = BytesIO()
    Image.fromarray(values).save(file, "PNG")
    assert np.array_equal(images.load(file, LIMITS)[:, :, 2], np.round(values / 65535 * 255))


def test_sixteen_bit_colour_is_scaled_to_eight():
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, 3))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    loaded = images.load(BytesIO(png(5, 4, 16, 2, rows)), LIMITS)
    assert np.abs(loaded - values / 65535 * 255).max() < 1  # Pillow keeps the high byte


@pytest.mark.parametrize("mode", ["F", "I"])
def test_samples_without_a_range_are_refused(mode):
    with pytest.raises(dlf.ImageError, match="no fixed range"):
        images.load(Image.new(mode, (2, 2)), LIMITS)


def test_opaque_alpha_is_dropped_silently(picture, caplog):
    opaque = Image.fromarray(np.dstack([picture, np.full((5, 7), 255, np.uint8)]))
    assert opaque.mode == "RGBA"
    assert np.array_equal(images.load(opaque, LIMITS), picture)
    assert not caplog.records


def test_transparent_parts_are_laid_over_white(picture, caplog):
    alpha = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7
    loaded = images.load(Image.fromarray(np.dstack([picture, alpha])), LIMITS)
    share = alpha[:, :, None] / 255
    assert np.abs(loaded - (picture * share + 255 * (1 - share))).max() <= 1
    assert "transparent" in caplog.text


@pytest.mark.parametrize("mode", ["LA", "PA", "P", "L", "RGBa"])
def test_every_kind_of_transparency_is_seen(mode, caplog):
    black = Image.new({"LA": "LA", "PA": "PA", "RGBa": "RGBA"}.get(mode, mode), (2, 1), 0)
    if mode in ("P", "L"):
        file = BytesIO()
        black.save(file, "PNG", transparency=0)
        black = Image.open(file)
    elif mode == "RGBa":
        black = black.convert("RGBa")
    assert np.array_equal(images.load(black, LIMITS), np.full((1, 2, 3), 255))
    assert "transparent" in caplog.text


# How the stored rows and columns are to be shown, by the EXIF standard's orientation values.
ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_applied(picture, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(images.load(tmp_path / "turned.png", LIMITS), ORIENTATIONS[orientation](picture))


def swapped_profile() -> bytes:
    """sRGB with the red and the blue primary exchanged, under another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = profile.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    return exchanged.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def test_colour_profile_is_converted_to_srgb(picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "profile.png", icc_profile=swapped_profile())
    loaded = images.load(tmp_path / "profile.png", LIMITS).astype(int)
    assert np.abs(loaded - picture[:, :, ::-1]).max() <= 1


def test_gray_stays_gray_under_a_colour_profile(picture, tmp_path):
    Image.fromarray(picture[:, :, 0]).save(tmp_path / "gray.png", icc_profile=swapped_profile())
    loaded = images.load(tmp_path / "gray.png", LIMITS).astype(int)
    assert np.abs(loaded - picture[:, :, :1]).max() <= 1


def test_srgb_profile_changes_nothing(picture, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture).save(tmp_path / "srgb.png", icc_profile=profile)
    assert np.array_equal(images.load(tmp_path / "srgb.png", LIMITS), picture)


def test_broken_profile_is_ignored_with_a_warning(picture, tmp_path, caplog):
    Image.fromarray(picture).save(tmp_path / "broken.png", icc_profile=b"not a profile")
    assert np.array_equal(images.load(tmp_path / "broken.png", LIMITS), picture)
    assert "profile" in caplog.text


def linear_profile(name: str) -> bytes:
    """sRGB's primaries with a curve that is the identity."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    table = {
        profile[at : at + 4]: struct.unpack(">II", profile[at + 4 : at + 12]) for at in range(132, 132 + 12 * profile[131], 12)
    }
    start, size = table[b"rTRC"]
    curve = (b"curv" + bytes(8)).ljust(size, b"\0")  # of no entries: the identity
    return (profile[:start] + curve + profile[start + size :]).replace("sRGB".encode("utf-16-be"), name.encode("utf-16-be"))


def srgb_of_light(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """IEC 61966-2-1, 0 to 1 -> 0 to 255."""
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("name", ["sRGB", "line"])
def test_the_name_of_a_profile_says_nothing(picture, name):
    file = BytesIO()
    Image.fromarray(picture).save(file, "PNG", icc_profile=linear_profile(name))
    assert np.abs(images.load(file) - srgb_of_light(picture / 255)).max() <= 2


def coloured_png(picture: NDArray[np.uint8], *chunks: bytes) -> BytesIO:
    file = BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    data = file.getvalue()
    return BytesIO(data[:33] + b"".join(chunks) + data[33:])


def test_gamma_of_png_is_converted(picture):
    linear = coloured_png(picture, chunk(b"gAMA", struct.pack(">I", 100_000)))
    assert np.abs(images.load(linear) - srgb_of_light(picture / 255)).max() <= 1
    usual = coloured_png(picture, chunk(b"gAMA", struct.pack(">I", 45_455)))
    assert np.array_equal(images.load(usual), picture)


def test_cicp_of_png_is_converted_and_goes_before_gamma():
    red = np.full((1, 1, 3), (200, 60, 60), np.uint8)
    p3 = coloured_png(red, chunk(b"cICP", bytes([12, 13, 0, 1])), chunk(b"gAMA", struct.pack(">I", 100_000)))
    assert np.abs(images.load(p3).astype(int) - (217, 42, 52)).max() <= 1  # by lcms, from a Display P3 profile


def test_high_dynamic_range_is_taken_as_srgb_with_a_warning(picture, caplog):
    assert np.array_equal(images.load(coloured_png(picture, chunk(b"cICP", bytes([9, 16, 0, 1])))), picture)
    assert "PQ" in caplog.text


def test_nclx_of_avif_is_converted():
    file = BytesIO()
    Image.new("RGB", (32, 32), (200, 60, 60)).save(file, "AVIF", quality=100, subsampling="4:4:4")
    before, box, after = file.getvalue().partition(b"colrnclx")
    linear = before + box + struct.pack(">HH", 1, 8) + after[4:]
    expected = srgb_of_light(np.array([200, 60, 60]) / 255)
    assert np.abs(images.load(BytesIO(linear)) - expected).max() <= 2


@pytest.mark.parametrize(("bits", "value"), [(1, 1), (2, 1), (4, 9), (8, 200), (16, 513)])
def test_transparent_gray_is_laid_over_white(bits, value):
    samples = np.zeros((1, 16), int)
    samples[:, 8:] = value
    row = b"".join(f"{sample:0{bits}b}".encode() for sample in samples[0])
    packed = int(row, 2).to_bytes(16 * bits // 8, "big")
    data = png(16, 1, bits, 0, b"\0" + packed)
    data = data[:33] + chunk(b"tRNS", struct.pack(">H", value)) + data[33:]
    assert images.load(BytesIO(data))[0, :, 0].tolist() == [0] * 8 + [255] * 8


def test_transparent_colour_is_compared_in_all_sixteen_bits():
    samples = np.array([[(258, 0, 0), (259, 0, 0)]], ">u2")
    data = png(2, 1, 16, 2, b"\0" + samples.tobytes())
    data = data[:33] + chunk(b"tRNS", struct.pack(">HHH", 259, 0, 0)) + data[33:]
    assert images.load(BytesIO(data)).tolist() == [[[1, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("photometric", [0, 1])
def test_sixteen_bit_tiff_is_read_with_white_where_it_is(photometric):
    ramp = np.arange(0, 65536, 4369, dtype="<u2")
    entries = [(256, 16), (257, 1), (258, 16), (259, 1), (262, photometric), (273, 200), (277, 1), (278, 1), (279, 32)]
    tags = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in entries)
    file = b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags
    loaded = images.load(BytesIO(file.ljust(200, b"\0") + ramp.tobytes()))[0, :, 0]
    assert loaded.tolist() == (np.arange(16) * 17)[:: 1 if photometric else -1].tolist()


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_that_was_closed_in_the_middle_is_told(progressive, caplog):
    file = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", progressive=progressive)
    images.load(file)
    assert not caplog.records
    images.load(BytesIO(file.getvalue()[: len(file.getvalue()) * 2 // 3] + b"\xff\xd9"))
    assert "ends before its picture" in caplog.text


EXIF = b"II*\0\x08\0\0\0\2\0" + struct.pack("<HHIHH", 274, 3, 1, 6, 0)


@pytest.mark.parametrize(
    "entry",
    [
        struct.pack("<HHI4s", 282, 2, 3, b"72\0\0"),  # a resolution as text
        struct.pack("<HHII", 282, 10, 1, 38),  # and negative
        struct.pack("<HHI4s", 34853, 2, 4, b"GPS\0"),
    ],
)
def test_orientation_is_read_beside_damaged_exif(picture, entry):
    exif = EXIF + entry + bytes(4) + struct.pack("<ii", -72, 1)
    assert np.array_equal(images.load(coloured_png(picture, chunk(b"eXIf", exif))), np.rot90(picture, -1))


def test_exif_that_cannot_be_read_is_told(picture, caplog):
    assert np.array_equal(images.load(coloured_png(picture, chunk(b"eXIf", b"\0\1garbage"))), picture)
    assert "EXIF" in caplog.text


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_large_metadata_of_png_does_not_cost_the_picture(picture, kind):
    large = chunk(kind, b"name\0\0" + zlib.compress(bytes(2 << 20)))
    assert np.array_equal(images.load(coloured_png(picture, large)), picture)


@pytest.mark.parametrize("suffix", [".ico", ".icns", ".gif", ".pbm"])
def test_formats_that_cannot_hold_the_picture_are_refused_before_the_work(suffix):
    with pytest.raises(dlf.ImageError, match=r"\.png"):
        images.format_of(suffix)


def test_animation_gives_its_first_frame_with_a_warning(tmp_path, caplog):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert np.array_equal(images.load(tmp_path / "moving.gif", LIMITS), np.full((4, 4, 3), (255, 0, 0)))
    assert "frames" in caplog.text


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(dlf.ImageError, match=r"none\.png: cannot be read \(No such file"):
        images.load(tmp_path / "none.png", LIMITS)


def test_file_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(dlf.ImageError, match=r"text\.png: not an image"):
        images.load(tmp_path / "text.png", LIMITS)


def test_every_truncation_of_an_image_is_refused_or_harmless(tmp_path):
    whole = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(whole, "PNG")
    refused = 0
    for size in range(0, len(whole.getvalue()), 97):
        try:
            images.load(BytesIO(whole.getvalue()[:size]), LIMITS)
        except dlf.ImageError:
            refused += 1
    assert refused >= size // 97


# ----------------------------------------------------------------------------------------------------------- limits


def test_size_is_refused_before_the_image_is_decoded():
    bomb = BytesIO(png(100_000, 100_000, 8, 2, b""))
    with pytest.raises(dlf.SizeLimitError, match="100000x100000"):
        images.load(bomb, LIMITS)


def test_raised_limits_go_beyond_those_of_pillow():
    before = Image.MAX_IMAGE_PIXELS
    large = BytesIO(png(20_000, 20_000, 8, 2, b""))  # has no rows: once its size is accepted, it is truncated
    with pytest.raises(dlf.ImageError, match="cannot be read"):
        images.load(large, dlf.Limits(max_pixels=1 << 30, max_side=1 << 15))
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("limits", [dlf.Limits(max_pixels=34), dlf.Limits(max_side=6)])
def test_limits_hold_for_every_source(picture, limits):
    for source in (picture, Image.fromarray(picture)):
        with pytest.raises(dlf.SizeLimitError, match="7x5"):
            images.load(source, limits)


# ----------------------------------------------------------------------------------------------------- stages' batch


@given(st.integers(1, 600), st.integers(1, 600), st.integers(0, 255))
def test_padding_repeats_the_edge_and_cropping_undoes_it(height, width, shift):
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows + shift, columns, rows + columns], axis=-1).astype(np.uint8)
    batch = images.pad_to_tiles(pixels)
    assert batch.shape == (1, 3, -(-height // 256) * 256, -(-width // 256) * 256)
    assert batch.dtype == np.float32
    assert np.array_equal(images.crop_to_pixels(batch, height, width), pixels)
    corner = pixels[-1, -1].astype(np.float32) / 255 * 2 - 1
    assert np.array_equal(batch[0, :, -1, -1], corner if (height % 256 or width % 256) else batch[0, :, height - 1, width - 1])
    assert (batch[0, :, :height, width:] == batch[0, :, :height, width - 1 : width]).all()
    assert (batch[0, :, height:] == batch[0, :, height - 1 : height]).all()


def test_batch_spans_minus_one_to_one():
    batch = images.pad_to_tiles(np.array([[[0, 51, 255]]], np.uint8))
    assert batch[0, :, 0, 0].tolist() == pytest.approx([-1, -0.6, 1], abs=1e-7)


def test_values_are_rounded_and_clipped():
    values = np.array([-9, -1, -1 + 0.9 / 127.5, 0.1 / 127.5, 1, 9], np.float32)
    batch = np.broadcast_to(values, (1, 3, 1, 6))
    assert images.crop_to_pixels(batch, 1, 6)[0, :, 0].tolist() == [0, 0, 1, 128, 255, 255]


# ---------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif"])
def test_lossless_formats_keep_the_picture(picture, tmp_path, suffix):
    images.save(picture, tmp_path / f"out{suffix}")
    assert np.array_equal(np.asarray(Image.open(tmp_path / f"out{suffix}")), picture)


def test_format_follows_the_suffix(picture, tmp_path):
    images.save(picture, str(tmp_path / "out.jpg"))
    assert Image.open(tmp_path / "out.jpg").format == "JPEG"


@pytest.mark.parametrize("name", ["out.xyz", "out", "out.pdfx"])
def test_unknown_suffix_is_refused(picture, tmp_path, name):
    with pytest.raises(dlf.ImageError, match=r"\.png"):
        images.save(picture, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_size_that_the_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(dlf.ImageError, match="70000x1"):
        images.save(np.zeros((1, 70_000, 3), np.uint8), tmp_path / "out.jpg")
    assert not list(Path(tmp_path).iterdir())
