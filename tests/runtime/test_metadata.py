"""The metadata of a .dlf file, compared with a writer made from docs/format.md and zlib's CRC."""

import binascii
import struct
import zlib

import numpy as np
import pytest
from helpers.conformance import FOLDER, SIZES, entropy_bin
from helpers.container import NO_LIMITS, varint
from hypothesis import given, settings
from hypothesis import strategies as st

import dlf
from dlf.runtime import errors
from dlf.runtime.libdlf import (
    EntropyModel,
    Metadata,
    detail_stream,
    parse_file,
    read_metadata,
    replace_metadata,
    unpack_tokens,
    write_file,
)

EXIF, XMP = b"II*\0" + bytes(range(200)), b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
BOTH = Metadata(EXIF, XMP)


def box(kind: int, content: bytes) -> bytes:
    body = bytes([kind]) + varint(len(content) - 1) + content
    return body + struct.pack("<I", zlib.crc32(body))


def picture(width=300, height=200, checksum=True) -> bytes:
    tokens = np.random.default_rng(0).integers(0, 512, (-(-width // 256) * -(-height // 256), 32)).astype(np.uint16)
    return write_file(
        width=width, height=height, fingerprint=0x1F2E, token_bits=9, tokens=tokens, detail=b"detail", checksum=checksum
    )


def with_boxes(data: bytes, boxes: bytes) -> bytes:
    """A file of version 1 as one of version 2."""
    info = parse_file(data, NO_LIMITS)
    end = info.header_bytes + info.token_bytes + info.detail_bytes
    body = data[:1] + bytes([data[1] + 0x20]) + data[2 : info.header_bytes] + varint(len(boxes) - 1)
    body += data[info.header_bytes : end]
    return body + (struct.pack("<H", binascii.crc_hqx(body, 0xFFFF)) if info.has_checksum else b"") + boxes


def test_crc_of_the_catalogue():
    """The check value that CRC catalogues give for CRC-32/ISO-HDLC, of the function that the boxes are compared with."""
    assert zlib.crc32(b"123456789") == 0xCBF43926


@given(
    width=st.sampled_from([1, 128, 129, 1000, 20000]),
    exif=st.binary(max_size=300),
    xmp=st.one_of(st.binary(max_size=300), st.just(bytes(65536))),
    checksum=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_second_implementation(width, exif, xmp, checksum):
    plain = picture(width, checksum=checksum)
    data = replace_metadata(plain, Metadata(exif, xmp))
    boxes = (box(1, exif) if exif else b"") + (box(2, xmp) if xmp else b"")
    assert data == (with_boxes(plain, boxes) if boxes else plain)
    assert read_metadata(data) == Metadata(exif, xmp)
    assert replace_metadata(data, Metadata()) == plain
    info, before = parse_file(data, NO_LIMITS), parse_file(plain, NO_LIMITS)
    assert (info.version, info.metadata_bytes) == ((2, len(boxes)) if boxes else (1, 0))
    assert (info.width, info.height, info.fingerprint, info.has_checksum) == (width, 200, 0x1F2E, checksum)
    np.testing.assert_array_equal(unpack_tokens(data, info), unpack_tokens(plain, before))
    assert detail_stream(data, info) == detail_stream(plain, before) == b"detail"
    sizes = (info.header_bytes, info.token_bytes, info.detail_bytes, info.checksum_bytes, info.metadata_bytes)
    assert sum(sizes) == len(data)


def test_boxes_of_unknown_kinds_are_passed_over():
    data = with_boxes(picture(), box(1, EXIF) + box(2, XMP) + box(7, b"from the future" * 9000))
    assert read_metadata(data) == BOTH
    assert replace_metadata(data, BOTH) == with_boxes(picture(), box(1, EXIF) + box(2, XMP))


@pytest.mark.parametrize("name", SIZES)
def test_conformance_vectors_decode_the_same_with_metadata(name):
    model, plain = EntropyModel(entropy_bin()), (FOLDER / f"{name}.dlf").read_bytes()
    data = replace_metadata(plain, BOTH)
    info, before = parse_file(data), parse_file(plain)
    assert detail_stream(data, info) == detail_stream(plain, before)
    np.testing.assert_array_equal(model.vq_embed(unpack_tokens(data, info)), model.vq_embed(unpack_tokens(plain, before)))


def test_preview_needs_no_metadata():
    data = replace_metadata(picture(), BOTH)
    whole = parse_file(data)
    for end in (whole.header_bytes + whole.token_bytes, len(data) - 1, len(data)):
        info = parse_file(data[:end], preview=True)
        assert (info.width, info.metadata_bytes, info.checksum_bytes) == (300, 0, 0)
        np.testing.assert_array_equal(unpack_tokens(data[:end], info), unpack_tokens(data, whole))


# ----------------------------------------------------------------------------------------------------------- refusals


def refused_with(error: type[errors.DLFError], message: str, data: bytes) -> None:
    for read in (parse_file, read_metadata, lambda data: replace_metadata(data, Metadata())):
        with pytest.raises(error, match=message):
            read(data)


@pytest.mark.parametrize("checksum", [True, False])
def test_every_flipped_bit_of_the_metadata_is_refused(checksum):
    data = bytearray(replace_metadata(picture(checksum=checksum), BOTH))
    start = len(data) - parse_file(bytes(data)).metadata_bytes
    for bit in range(8 * start, 8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(errors.DLFError):
            parse_file(bytes(data))
        data[bit // 8] ^= 1 << bit % 8


def test_every_end_before_the_end_is_refused_and_what_is_added():
    data = replace_metadata(picture(), BOTH)
    for end in range(len(data)):
        with pytest.raises(errors.DLFError):
            parse_file(data[:end])
    refused_with(errors.ChecksumError, "does not match", data + b"x")


def test_exchanged_boxes_are_refused():
    refused_with(errors.StreamCorruptError, "boxes of its metadata", with_boxes(picture(), box(2, XMP) + box(1, EXIF)))
    refused_with(errors.StreamCorruptError, "boxes of its metadata", with_boxes(picture(), box(1, EXIF) + box(1, EXIF)))
    refused_with(errors.StreamCorruptError, "boxes of its metadata", with_boxes(picture(), box(0, EXIF)))


@pytest.mark.parametrize(
    "boxes",
    [
        box(1, EXIF)[:-1],
        box(1, EXIF) + b"\x02",
        b"\x01\xff\xff\x7f" + bytes(100),  # longer than the file
        b"\x01\x80\x00x" + struct.pack("<I", zlib.crc32(b"\x01\x80\x00x")),  # a second spelling of the length
    ],
)
def test_malformed_boxes_are_refused(boxes):
    refused_with(errors.StreamCorruptError, "boxes of its metadata", with_boxes(picture(), boxes))


def test_box_with_a_wrong_checksum_is_refused():
    refused_with(errors.ChecksumError, "does not match", with_boxes(picture(), box(1, EXIF)[:-1] + b"?"))


def test_too_large_metadata_are_refused_and_not_written():
    large = bytes(65537)
    refused_with(errors.SizeLimitError, "its EXIF has 65537 bytes, over the limit of 65536", with_boxes(picture(), box(1, large)))
    refused_with(errors.SizeLimitError, "its XMP has 65537 bytes", with_boxes(picture(), box(2, large)))
    with pytest.raises(errors.SizeLimitError, match="its XMP has 65537 bytes"):
        replace_metadata(picture(), Metadata(xmp=large))


def test_file_that_ends_before_its_metadata_is_refused():
    """A file whose header promises more than there is."""
    header = parse_file(picture()).header_bytes
    data = with_boxes(picture(), box(1, EXIF))[: header + 100]
    refused_with(errors.TokensMissingError, r"300x200 image, .* take at least \d+ bytes after the header", data)


def test_damaged_picture_is_refused_before_its_metadata_are_replaced():
    data = bytearray(replace_metadata(picture(), BOTH))
    data[20] ^= 1
    refused_with(errors.ChecksumError, "does not match", bytes(data))


def test_version_1_is_not_changed():
    assert picture()[1] >> 5 == 1
    assert dlf.info(picture()).version == 1
