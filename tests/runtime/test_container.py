"""The .dlf file, compared with a writer made from docs/format.md and binascii's CRC."""

import binascii
import struct
from functools import partial

import numpy as np
import pytest
from helpers.conformance import FOLDER
from helpers.container import NO_LIMITS, check_that_damage_is_refused, varint
from helpers.entropy import random_tables
from hypothesis import given, settings
from hypothesis import strategies as st

import dlf
from dlf.runtime import errors
from dlf.runtime.libdlf import EntropyModel, FileInfo, Limits, detail_stream, parse_file, unpack_tokens, write_file


def with_crc(body: bytes) -> bytes:
    return body + struct.pack("<H", binascii.crc_hqx(body, 0xFFFF))


def python_write(width, height, fingerprint, token_bits, tokens, detail, checksum=True) -> bytes:
    bits = "".join(f"{token:0{token_bits}b}" for token in tokens.ravel())
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big")
    flags = 1 << 5 | (0 if checksum else 1 << 4) | token_bits - 1
    body = bytes([0xDF, flags, fingerprint >> 8, fingerprint & 255]) + varint(width - 1) + varint(height - 1) + packed + detail
    return with_crc(body) if checksum else body


def random_tokens(width: int, height: int, bits: int, seed: int = 0) -> np.ndarray:
    tiles = -(-width // 256) * -(-height // 256)
    return np.random.default_rng(seed).integers(0, 2**bits, (tiles, 32)).astype(np.uint16)


def make(width=300, height=200, token_bits=9, detail=b"detail", **more) -> bytes:
    return write_file(
        width=width,
        height=height,
        fingerprint=0x1F2E,
        token_bits=token_bits,
        tokens=random_tokens(width, height, token_bits),
        detail=detail,
        **more,
    )


def test_crc_of_the_catalogue():
    """The check value that CRC catalogues give for CRC-16/IBM-3740, of the function that the files are compared with."""
    assert binascii.crc_hqx(b"123456789", 0xFFFF) == 0x29B1


@given(
    width=st.one_of(st.integers(1, 3000), st.sampled_from([1, 128, 129, 256, 257, 16384, 16385])),
    height=st.integers(1, 600),
    bits=st.integers(1, 16),
    fingerprint=st.integers(0, 0xFFFF),
    detail=st.binary(max_size=50),
    checksum=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_second_implementation(width, height, bits, fingerprint, detail, checksum):
    tokens = random_tokens(width, height, bits, seed=width)
    data = write_file(
        width=width, height=height, fingerprint=fingerprint, token_bits=bits, tokens=tokens, detail=detail, checksum=checksum
    )
    assert data == python_write(width, height, fingerprint, bits, tokens, detail, checksum)
    info = parse_file(data, NO_LIMITS)
    assert info == FileInfo(
        width=width,
        height=height,
        version=1,
        fingerprint=fingerprint,
        token_bits=bits,
        has_checksum=checksum,
        tiles=len(tokens),
        header_bytes=4 + len(varint(width - 1)) + len(varint(height - 1)),
        token_bytes=len(tokens) * 4 * bits,
        detail_bytes=len(detail),
        checksum_bytes=2 * checksum,
        metadata_bytes=0,
        coded_tokens=False,
    )
    np.testing.assert_array_equal(unpack_tokens(data, info), tokens)
    assert detail_stream(data, info) == detail


@pytest.mark.parametrize("bits", range(1, 17))
def test_extreme_tokens_of_every_width(bits):
    for value in (0, 2**bits - 1):
        tokens = np.full((2, 32), value, np.uint16)
        tokens[0, ::2] = 0
        data = write_file(width=512, height=1, fingerprint=0, token_bits=bits, tokens=tokens, detail=b"")
        np.testing.assert_array_equal(unpack_tokens(data, parse_file(data)), tokens)


@pytest.mark.parametrize("checksum", [True, False])
def test_preview_needs_header_and_tokens_alone(checksum):
    whole = make(checksum=checksum)
    info = parse_file(whole)
    enough = info.header_bytes + info.token_bytes
    for end in range(enough, len(whole) + 1):
        damaged = whole[:enough] + bytes(end - enough)
        found = parse_file(damaged, preview=True)
        assert (found.detail_bytes, found.checksum_bytes) == (end - enough, 0)
        assert (found.width, found.height, found.fingerprint) == (info.width, info.height, info.fingerprint)
        np.testing.assert_array_equal(unpack_tokens(damaged, found), unpack_tokens(whole, info))
    for end in range(info.header_bytes, enough):
        with pytest.raises(errors.TokensMissingError):
            parse_file(whole[:end], preview=True)


def test_ten_bytes_beside_tokens_and_detail():
    info = parse_file(make(768, 512, 12))
    assert info.header_bytes + info.checksum_bytes <= 10
    assert info.token_bytes == 288


def test_largest_side():
    info = parse_file(make(2**21, 1, 1), NO_LIMITS)
    assert (info.width, info.tiles) == (2**21, 8192)


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" + bytes(100), b"\xff\xd8\xff\xe0", b"\x00"])
def test_another_format_is_refused(data):
    with pytest.raises(errors.NotDLFError, match=f"0x{data[0]:02x}"):
        parse_file(data)


@pytest.mark.parametrize("version", [0, 5, 6, 7])
def test_unknown_version_is_refused(version):
    data = bytearray(make())
    data[1] = data[1] & 0x1F | version << 5
    with pytest.raises(errors.UnsupportedVersionError, match=f"version {version}"):
        parse_file(bytes(data))


@pytest.mark.parametrize("size", [b"\x80\x00\x05", b"\xff\x80\x00\x05", b"\x05\x80\x00", b"\xff\xff\xff\x01\x05"])
def test_second_spelling_of_a_size_is_refused(size):
    with pytest.raises(errors.NotDLFError, match="size"):
        parse_file(with_crc(b"\xdf\x20\x00\x00" + size + bytes(400)))


def test_end_inside_the_header_is_refused():
    data = make()
    for end in range(parse_file(data).header_bytes):
        with pytest.raises(errors.TruncatedError, match=f"after {end} bytes"):
            parse_file(data[:end])


@pytest.mark.parametrize(
    ("width", "height", "remedy"),
    [
        (16385, 1, "16384 a side; raise it with max_side"),
        (1, 16385, "max_side"),
        (8193, 8192, "67108864 in all; raise it with max_pixels"),
    ],
)
def test_limits(width, height, remedy):
    data = make(width, height, 1)
    with pytest.raises(errors.SizeLimitError, match=f"{width}x{height}.*{remedy}"):
        parse_file(data)
    assert parse_file(data, Limits(max_pixels=width * height, max_side=max(width, height))).width == width


@pytest.mark.parametrize(("width", "height"), [(16384, 4096), (8192, 8192)])
def test_largest_size_within_the_limits(width, height):
    assert parse_file(make(width, height, 1)).height == height


def test_limits_can_be_lowered_and_have_no_largest_value():
    with pytest.raises(errors.SizeLimitError):
        parse_file(make(), Limits(max_side=299))
    with pytest.raises(errors.SizeLimitError):
        parse_file(make(), Limits(max_pixels=300 * 200 - 1))
    assert parse_file(make(), Limits(2**100, 2**100)).width == 300


def test_missing_tokens_are_refused():
    data = make(300, 200, 9, b"")
    info = parse_file(data)
    for end in range(info.header_bytes, len(data)):
        with pytest.raises(errors.TokensMissingError, match="300x200 image, with checksum and metadata, take at least 74 bytes"):
            parse_file(data[:end])


def test_huge_size_in_a_short_file_is_refused_before_anything_is_allocated():
    header = b"\xdf\x2f\x00\x00" + varint(2**21 - 1) + varint(2**21 - 1)
    with pytest.raises(errors.TokensMissingError):
        parse_file(with_crc(header), NO_LIMITS)


def test_checksum():
    data = make()
    with pytest.raises(errors.ChecksumError, match="damaged"):
        parse_file(data[:-1] + bytes([data[-1] ^ 1]))
    assert not parse_file(make(checksum=False)).has_checksum


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"height": 2**21 + 1}, "height is 2097153"),
        ({"fingerprint": 65536}, "fingerprint"),
        ({"fingerprint": -1}, "fingerprint"),
        ({"token_bits": 0}, "token_bits"),
        ({"token_bits": 17}, "token_bits"),
        ({"tokens": np.zeros((2, 32), np.uint16)}, "shape"),
        ({"tokens": np.zeros((1, 32), np.int64)}, "int64"),
        ({"tokens": np.full((1, 32), 16, np.uint16)}, "too large for 4 bits"),
    ],
)
def test_writer_refuses(change, message):
    fields = {"width": 7, "height": 7, "fingerprint": 1, "token_bits": 4, "tokens": np.zeros((1, 32), np.uint16), "detail": b""}
    write_file(**fields)
    with pytest.raises(errors.InvalidArgumentError, match=message):
        write_file(**{**fields, **change})


def test_tokens_of_another_file_are_refused():
    with pytest.raises(errors.InvalidArgumentError, match="not the file that was parsed"):
        unpack_tokens(make()[:20], parse_file(make()))


# ------------------------------------------------------------------------------------- whole files, as a decoder reads them


def encode(model: EntropyModel, width: int, height: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, model.codebook_size, (-(-width // 256) * -(-height // 256), 32)).astype(np.uint16)
    y = rng.normal(size=(model.channels, 8 * -(-height // 256), 8 * -(-width // 256))).astype(np.float32)
    return model.write_file(width, height, tokens, model.encode_detail(y))


def decode(model: EntropyModel, data: bytes) -> None:
    info = parse_file(data)
    if (info.fingerprint, info.token_bits) != (model.fingerprint, model.token_bits):
        raise errors.WrongModelError("another model")
    model.vq_embed(unpack_tokens(data, info))
    model.decode_detail(detail_stream(data, info), 8 * -(-info.height // 256), 8 * -(-info.width // 256))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (255, 257), (300, 200)])
def test_every_prefix_and_every_bit_flip_is_refused(width, height):
    model = EntropyModel(random_tables(np.random.default_rng(0), 4, entries=13).to_bytes())
    data = encode(model, width, height, seed=width)
    check_that_damage_is_refused(partial(decode, model), data)


@given(st.binary(max_size=80), st.sampled_from([b"", b"\xdf", b"\xdf\x20", b"\xdf\x30\x00\x00\x00\x00"]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_refused_or_described(data, start):
    data = start + data
    try:
        info = parse_file(data)
    except errors.DLFError:
        return
    assert info.header_bytes + info.token_bytes + info.detail_bytes + info.checksum_bytes == len(data)


@pytest.mark.parametrize("buffer", [bytearray, memoryview])
def test_a_file_may_be_given_as_another_buffer(buffer):
    data = (FOLDER / "255x257.dlf").read_bytes()
    assert dlf.info(buffer(data)) == dlf.info(data)
