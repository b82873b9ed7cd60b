"""Damaged files end in a typed error, never in a picture. (Each refusal of the container and of the entropy core has a test
of its own in test_container.py and native/; those of bundles and backends are in test_bundle.py, of images in test_images.py.)
"""

from pathlib import Path

import numpy as np
import pytest
from helpers.bundle import make_toy_bundle

import dlf
from dlf.runtime.backends.choice import installed


@pytest.fixture(scope="module")
def decoder(toy_bundle: Path) -> dlf.Codec:
    return dlf.Codec(toy_bundle, installed()[0], threads=1)


def encoded(bundle: Path, height: int, width: int, checksum: bool = True) -> bytes:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return dlf.Codec(bundle, installed()[0], threads=1, checksum=checksum).encode(pixels)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (200, 130), (20, 300)])
def test_every_prefix_is_refused(toy_bundle, decoder, height, width):
    for checksum in (True, False):
        data = encoded(toy_bundle, height, width, checksum)
        assert decoder.decode(data).shape == (height, width, 3)
        for size in range(len(data)):
            with pytest.raises(dlf.DLFError):
                decoder.decode(data[:size])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (200, 130), (20, 300)])
def test_every_flipped_bit_is_refused(toy_bundle, decoder, height, width):
    data = bytearray(encoded(toy_bundle, height, width))
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(dlf.DLFError):
            decoder.decode(bytes(data))
        data[bit // 8] ^= 1 << bit % 8
    assert decoder.decode(bytes(data)).shape == (height, width, 3)


def test_appended_bytes_are_refused(toy_bundle, decoder):
    with pytest.raises(dlf.ChecksumError):
        decoder.decode(encoded(toy_bundle, 9, 9) + b"\0")
    with pytest.raises(dlf.TrailingBytesError):
        decoder.decode(encoded(toy_bundle, 9, 9, checksum=False) + b"\0")


def test_state_that_no_encoder_leaves_is_refused(toy_bundle, decoder):
    data = bytearray(encoded(toy_bundle, 9, 9, checksum=False))
    parts = dlf.info(bytes(data)).bytes
    data[parts.header + parts.tokens + 3] = 0xFF  # the state is 4 bytes, little-endian, and below 2^31
    with pytest.raises(dlf.StreamCorruptError):
        decoder.decode(bytes(data))


def test_size_is_refused_before_anything_else(decoder):
    claims_2_pow_42_pixels = bytes([0xDF, 0x25, 0, 0, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0x7F])
    with pytest.raises(dlf.SizeLimitError, match="2097152x2097152"):
        decoder.decode(claims_2_pow_42_pixels)


def test_other_model_is_refused_before_its_stream_is_read(toy_bundle, decoder):
    data = bytearray(encoded(toy_bundle, 9, 9, checksum=False))
    data[2] ^= 0xFF
    with pytest.raises(dlf.WrongModelError, match=decoder.bundle.fingerprint):
        decoder.decode(bytes(data))


def test_other_token_width_is_refused(toy_bundle, decoder):
    data = bytearray(encoded(toy_bundle, 200, 200, checksum=False))
    data[1] = data[1] & 0xF0 | 4  # 5 bits instead of 6
    with pytest.raises(dlf.WrongModelError, match="5 bits a token"):
        decoder.decode(bytes(data))


def test_token_outside_the_codebook_is_refused(tmp_path):
    codec = dlf.Codec(make_toy_bundle(tmp_path / "odd", entries=40), installed()[0])
    data = bytearray(dlf.Codec(codec.bundle.path, installed()[0], checksum=False).encode(np.zeros((9, 9), np.uint8)))
    assert codec.decode(bytes(data)).shape == (9, 9, 3)
    header = dlf.info(bytes(data)).bytes.header
    data[header] |= 0xFC  # the first token becomes 63
    with pytest.raises(dlf.StreamCorruptError, match="codebook of 40"):
        codec.decode(bytes(data))


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_what_is_no_dlf_file_is_refused(decoder, data):
    with pytest.raises(dlf.NotDLFError if data else dlf.TruncatedError):
        decoder.decode(data)


@pytest.mark.parametrize("data", ["photo.dlf", Path("photo.dlf"), None, bytearray(b"x")])
def test_what_is_no_bytes_is_refused(decoder, data):
    for call in (decoder.decode, dlf.info):
        with pytest.raises(dlf.InvalidArgumentError, match="bytes"):
            call(data)
