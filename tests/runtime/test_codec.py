from pathlib import Path

import numpy as np
import pytest
from helpers_bundle import make_toy_bundle, toy_picture, toy_tokens
from numpy.typing import NDArray

import dlf
from dlf.kernels.entropy_tables import EntropyTables
from dlf.runtime.backends import installed

SIZES = [(1, 1), (1, 300), (300, 1), (257, 255), (256, 256), (512, 300)]


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth colours with some noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(rows / 50), np.cos(columns / 70), np.sin((rows + columns) / 90)], axis=-1)
    noise = np.random.default_rng(height * width).normal(0, 10, (height, width, 3))
    return np.clip(128 + 90 * waves + noise, 0, 255).astype(np.uint8)


def padded(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(3, H', W') in -1..1, by explicit indexing."""
    height, width, _ = image.shape
    rows = np.minimum(np.arange(-(-height // 256) * 256), height - 1)
    columns = np.minimum(np.arange(-(-width // 256) * 256), width - 1)
    return (image[rows][:, columns].transpose(2, 0, 1) / 127.5 - 1).astype(np.float32)


@pytest.fixture(scope="module")
def codebook(toy_bundle: Path) -> NDArray[np.float32]:
    return EntropyTables.from_bytes((toy_bundle / "entropy.bin").read_bytes()).codebook


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_round_trip_gives_the_picture_that_numpy_computes(codec, toy_bundle, codebook, height, width):
    image = photograph(height, width)
    decoded = codec.decode(codec.encode(image))
    expected = (toy_picture(toy_bundle, padded(image), codebook)[:height, :width] + 1) * 127.5
    assert decoded.shape == image.shape
    assert decoded.dtype == np.uint8
    assert np.abs(decoded - expected).max() <= 3  # q/2 of y is 2 levels, rounding half a level


def test_file_holds_the_tokens_that_numpy_finds(codec, toy_bundle, codebook):
    image = photograph(300, 520)
    data = codec.encode(image)
    found = dlf.info(data)
    tokens = data[found.bytes.header : found.bytes.header + found.bytes.tokens]
    bits = np.unpackbits(np.frombuffer(tokens, np.uint8)).reshape(-1, 32, 6)
    assert np.array_equal(bits @ (1 << np.arange(5, -1, -1)), toy_tokens(toy_bundle, padded(image), codebook))


def test_info_describes_the_file(codec):
    data = codec.encode(photograph(300, 520))
    parts = dlf.info(data).to_dict()["bytes"]
    assert dlf.info(data).to_dict() == {
        "width": 520,
        "height": 300,
        "version": 1,
        "fingerprint": codec.bundle.fingerprint,
        "tiles": 6,
        "bytes": {"total": len(data), "header": 8, "tokens": 6 * 24, "detail": len(data) - 154, "checksum": 2},
        "bpp": pytest.approx(len(data) * 8 / 520 / 300),
        "padding_waste": pytest.approx(1 - 520 * 300 / (512 * 768)),
    }
    assert parts["header"] + parts["tokens"] + parts["detail"] + parts["checksum"] == parts["total"]


def test_without_checksum_the_file_is_two_bytes_shorter(toy_bundle, codec):
    image = photograph(20, 30)
    plain = dlf.Codec(toy_bundle, codec.backend.name, checksum=False)
    assert len(plain.encode(image)) == len(codec.encode(image)) - 2
    assert np.array_equal(codec.decode(plain.encode(image)), codec.decode(codec.encode(image)))


def test_low_memory_changes_nothing_in_the_picture(toy_bundle, codec):
    data = codec.encode(photograph(100, 100))
    lean = dlf.Codec(toy_bundle, codec.backend.name, low_memory=True)
    assert lean.encode(photograph(100, 100)) == data
    assert np.array_equal(lean.decode(data), codec.decode(data))


def test_encoding_needs_no_decoder_and_decoding_no_encoder(codec, bundle_copy):
    data = codec.encode(photograph(10, 10))
    for stage in ("synthesis", "adaptor", "generator"):
        (bundle_copy / f"{stage}.onnx").rename(bundle_copy / f"{stage}.away")
    assert dlf.Codec(bundle_copy, codec.backend.name).encode(photograph(10, 10)) == data
    for stage in ("synthesis", "adaptor", "generator"):
        (bundle_copy / f"{stage}.away").rename(bundle_copy / f"{stage}.onnx")
    (bundle_copy / "analysis.onnx").unlink()
    assert np.array_equal(dlf.Codec(bundle_copy, codec.backend.name).decode(data), codec.decode(data))


def test_codec_is_usable_after_close(codec):
    data = codec.encode(photograph(10, 10))
    codec.close()
    assert codec.encode(photograph(10, 10)) == data


def test_backend_tells_what_is_in_use(codec, caplog):
    assert codec.backend.precision == "fp32"
    assert codec.backend.device
    assert codec.backend.versions.keys() == {codec.backend.name}
    with caplog.at_level("DEBUG", "dlf"):
        dlf.Codec(codec.bundle.path, codec.backend.name).encode(photograph(10, 10))
    for fact in (codec.backend.name, codec.backend.device, *codec.backend.versions.values(), "fp32", "analysis"):
        assert fact in caplog.text


def test_timings_are_those_of_the_last_call(codec):
    data = codec.encode(photograph(10, 10))
    assert codec.timings.keys() == {"image", "load", "analysis", "vq", "detail"}
    codec.decode(data)
    assert codec.timings.keys() == {"vq", "detail", "load", "synthesis", "adaptor", "generator", "image"}
    assert all(seconds >= 0 for seconds in codec.timings.values())


def test_two_models_of_one_layout_are_told_apart(codec, tmp_path):
    other = dlf.Codec(make_toy_bundle(tmp_path / "other", seed=1), codec.backend.name)
    with pytest.raises(dlf.WrongModelError) as refusal:
        other.decode(codec.encode(photograph(10, 10)))
    assert codec.bundle.fingerprint in str(refusal.value)
    assert other.bundle.fingerprint in str(refusal.value)


@pytest.mark.parametrize("limits", [dlf.Limits(max_pixels=99), dlf.Limits(max_side=9)])
def test_limits_hold_for_encoding_and_decoding(codec, limits):
    image = photograph(10, 10)
    strict = dlf.Codec(codec.bundle.path, codec.backend.name, limits=limits)
    with pytest.raises(dlf.SizeLimitError, match="10x10"):
        strict.encode(image)
    with pytest.raises(dlf.SizeLimitError, match="10x10"):
        strict.decode(codec.encode(image))


def test_limits_can_be_raised(codec):
    wide = photograph(1, 16385)
    with pytest.raises(dlf.SizeLimitError):
        codec.encode(wide)
    generous = dlf.Codec(codec.bundle.path, codec.backend.name, limits=dlf.Limits(max_side=20000))
    assert generous.decode(generous.encode(wide)).shape == wide.shape


def test_backends_read_each_others_files_of_a_real_model(tiny_bundle):
    codecs = [dlf.Codec(tiny_bundle, name, threads=1) for name in installed()]
    image = photograph(100, 300)
    for writer in codecs:
        data = writer.encode(image)
        pictures = [reader.decode(data).astype(int) for reader in codecs]
        assert pictures[0].shape == image.shape
        assert pictures[0].std() > 0
        assert all(np.abs(picture - pictures[0]).max() <= 1 for picture in pictures)
