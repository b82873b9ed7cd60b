import numpy as np
import pytest
from PIL import Image

import dlf
from dlf.benchmarks import measure
from dlf.benchmarks.rivals import encode
from dlf.benchmarks.rivals.pillow import RIVALS

JPEG, WEBP = RIVALS["jpeg"], RIVALS["webp"]


def compare(original, decoded):
    return {"error": float(np.abs(original.astype(float) - decoded).mean())}


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 300, 3), dtype=np.uint8)).save(path)
    return path


def test_rate_and_quality_are_of_the_file_that_the_codec_writes(photo, codec):
    result, pictures = measure.image(photo, codec, compare)
    data = codec.encode(photo)
    pixels = np.asarray(Image.open(photo))
    (ours,) = result.codings
    assert ours.bytes == len(data) == sum(result.parts.values())
    assert ours.bpp == pytest.approx(8 * len(data) / (90 * 300))
    assert result.padding_waste == pytest.approx(1 - 90 * 300 / (256 * 512))
    assert ours.quality == compare(pixels, codec.decode(data))
    assert (result.image, result.width, result.height) == ("photo.png", 300, 90)
    assert pictures == {}


def test_a_rival_is_measured_at_our_size(photo, toy_bundle):
    with dlf.Codec(toy_bundle) as codec:
        result, pictures = measure.image(photo, codec, compare, [JPEG], with_pictures=True)
    ours, rival = result.codings
    pixels = np.asarray(Image.open(photo))
    expected = encode(JPEG, pixels, ours.bytes)
    assert (rival.bytes, rival.at_minimum) == (len(expected.data), expected.at_minimum)
    assert rival.quality == compare(pixels, JPEG.decode(expected.data))
    assert list(pictures) == ["original", "dlf", "jpeg"]
    assert all(uri.startswith("data:image/webp;base64,") for uri in pictures.values())


def test_a_rivals_curve_is_of_all_its_qualities(photo, toy_bundle):
    with dlf.Codec(toy_bundle) as codec:
        result, _ = measure.image(photo, codec, compare, [JPEG, WEBP], with_curves=True)
    assert [(coding.codec, coding.setting) for coding in result.curves] == [
        (name, f"quality {quality}") for name in ("jpeg", "webp") for quality in JPEG.curve
    ]
    for curve in (result.curves[: len(JPEG.curve)], result.curves[len(JPEG.curve) :]):
        assert len({coding.bytes for coding in curve}) == len(JPEG.curve)
        assert curve == sorted(curve, key=lambda coding: coding.bytes)
        assert curve[0].quality["error"] > curve[-1].quality["error"]
