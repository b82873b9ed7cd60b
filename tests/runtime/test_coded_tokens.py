"""Files whose tokens are coded by their frequencies, compared with a second coder made from docs/format.md."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.bundle import seal
from helpers.conformance import entropy_bin, entropy_tables, stored, tokens
from helpers.container import check_that_damage_is_refused
from helpers.entropy import python_put_tokens, python_take_tokens, random_tables, with_token_frequencies
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import dlf
from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime import errors
from dlf.runtime.libdlf import EntropyModel, FileInfo, Metadata, parse_file, read_metadata, replace_metadata, write_file

EMPTY = (1 << 23).to_bytes(4, "little")  # the stream of no symbols


def random_model(seed: int, entries: int) -> tuple[EntropyModel, NDArray[np.uint16]]:
    rng = np.random.default_rng(seed)
    tables = with_token_frequencies(random_tables(rng, 4, entries=entries), rng)
    assert tables.token_frequencies is not None
    return EntropyModel(tables.to_bytes()), tables.token_frequencies


@pytest.fixture(scope="module")
def model() -> EntropyModel:
    return EntropyModel(entropy_bin(3))


@given(
    seed=st.integers(0, 2**32 - 1),
    entries=st.sampled_from([2, 3, 16, 257, 4096]),
    width=st.integers(1, 600),
    height=st.integers(1, 300),
    state=st.integers(1 << 23, (1 << 31) - 1),
    rest=st.binary(max_size=20),
    checksum=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_second_implementation(seed, entries, width, height, state, rest, checksum):
    """Any tokens, likely or not, before any stream: the same bytes, and back."""
    model, frequencies = random_model(seed, entries)
    tiles = -(-width // 256) * -(-height // 256)
    values = np.random.default_rng(seed).integers(0, entries, (tiles, 32)).astype(np.uint16)
    detail = state.to_bytes(4, "little") + rest
    data = model.write_file(width, height, values, detail, checksum=checksum)
    info = parse_file(data)
    expected = python_put_tokens(frequencies, values, detail)
    assert data[info.header_bytes :][: len(expected)] == expected
    assert info == FileInfo(
        width=width,
        height=height,
        version=3,
        fingerprint=model.fingerprint,
        token_bits=model.token_bits,
        has_checksum=checksum,
        tiles=tiles,
        header_bytes=info.header_bytes,
        token_bytes=0,
        detail_bytes=len(expected),
        checksum_bytes=2 * checksum,
        metadata_bytes=0,
        coded_tokens=True,
    )
    found, again = model.read_file(data, info)
    np.testing.assert_array_equal(found, values)
    assert again == detail


def test_the_header_is_that_of_version_1_but_for_the_version():
    packed, coded = EntropyModel(entropy_bin(1)), EntropyModel(entropy_bin(3))
    one, two = (model.write_file(300, 200, tokens("255x257"), EMPTY) for model in (packed, coded))
    header = parse_file(one).header_bytes
    assert parse_file(two).header_bytes == header
    assert (one[0], one[1] >> 5, one[1] & 31, one[4:header]) == (two[0], two[1] >> 5 ^ 2, two[1] & 31, two[4:header])


def test_likely_tokens_take_no_bytes_and_unlikely_ones_two():
    frequencies = np.ones((32, 16), np.uint16)
    frequencies[:, 3] = 65536 - 15
    tables = random_tables(np.random.default_rng(0), 4, entries=16)
    model = EntropyModel(EntropyTables(**{**vars(tables), "token_frequencies": frequencies}).to_bytes())
    for token, size in ((3, 4), (4, 4 + 32 * 2)):
        data = model.write_file(1, 1, np.full((1, 32), token, np.uint16), EMPTY)
        assert abs(parse_file(data).detail_bytes - size) <= 1


@pytest.mark.parametrize("name", ["1x1", "255x257"])
def test_a_preview_needs_what_its_tokens_take(model, name):
    whole, frequencies = stored(name, 3), entropy_tables(3).token_frequencies
    assert frequencies is not None
    info = parse_file(whole)
    stream = whole[info.header_bytes : len(whole) - 2]
    _, detail = python_take_tokens(frequencies, stream, info.tiles)
    enough = info.header_bytes + 4 + len(stream) - len(detail)  # the state, and the bytes that the tokens have added
    assert enough < len(whole) - 100
    for end in (*range(enough, enough + 20), len(whole) - 1, len(whole)):
        damaged = whole[:enough] + bytes(end - enough)
        found, _ = model.read_file(damaged, parse_file(damaged, preview=True))
        np.testing.assert_array_equal(found, tokens(name))
    for end in range(info.header_bytes + 4, enough):
        with pytest.raises(errors.TruncatedError, match="incomplete"):
            model.read_file(whole[:end], parse_file(whole[:end], preview=True))
    for end in range(info.header_bytes, info.header_bytes + 4):
        with pytest.raises(errors.TokensMissingError, match="at least 4 bytes"):
            parse_file(whole[:end], preview=True)


def decode(model: EntropyModel, data: bytes) -> None:
    info = parse_file(data)
    if (info.fingerprint, info.token_bits, info.coded_tokens) != (model.fingerprint, model.token_bits, True):
        raise errors.WrongModelError("another model")
    _, detail = model.read_file(data, info)
    model.decode_detail(detail, 8, 8)


def test_every_prefix_and_every_bit_flip_is_refused(model):
    data = stored("1x1", 3)
    check_that_damage_is_refused(partial(decode, model), data)


@given(st.binary(max_size=120))
@settings(max_examples=300, deadline=None)
def test_any_stream_is_refused_or_read_as_the_one_that_writing_gives_again(stream):
    """Decoding is one to one, so that no two files hold the same tokens and detail."""
    model = EntropyModel(entropy_bin(3))
    data = write_file(width=1, height=1, fingerprint=model.fingerprint, token_bits=6, tokens=None, detail=stream)
    try:
        values, detail = model.read_file(data, parse_file(data))
    except errors.DLFError:
        return
    assert model.write_file(1, 1, values, detail) == data


def test_metadata_beside_coded_tokens(model):
    data = stored("255x257", 3)
    kept = Metadata(b"II*\0 some EXIF", b"<x:xmpmeta/>")
    both = replace_metadata(data, kept)
    info = parse_file(both)
    assert (info.version, info.coded_tokens, info.metadata_bytes > 0) == (4, True, True)
    np.testing.assert_array_equal(model.read_file(both, info)[0], tokens("255x257"))
    assert model.read_file(both, info)[1] == model.read_file(data, parse_file(data))[1]
    assert read_metadata(both) == kept
    assert replace_metadata(both, Metadata()) == data


# ------------------------------------------------------------------------------------------------------ refusals


def test_a_state_that_no_encoder_writes_is_refused(model):
    data = write_file(width=1, height=1, fingerprint=0, token_bits=6, tokens=None, detail=bytes(40))
    with pytest.raises(errors.StreamCorruptError):
        model.read_file(data, parse_file(data))


def test_a_token_that_the_codebook_lacks_is_not_written(model):
    with pytest.raises(errors.InvalidArgumentError, match="codebook of 64"):
        model.write_file(1, 1, np.full((1, 32), 64, np.uint16), EMPTY)


@pytest.mark.parametrize(("detail", "refusal"), [(EMPTY[:3], errors.TruncatedError), (bytes(4), errors.StreamCorruptError)])
def test_a_detail_that_is_no_stream_is_not_written(model, detail, refusal):
    with pytest.raises(refusal):
        model.write_file(1, 1, np.zeros((1, 32), np.uint16), detail)


@pytest.mark.parametrize("shape", [(2, 32), (1, 31)])
def test_tokens_of_another_size_are_not_written(model, shape):
    with pytest.raises(errors.InvalidArgumentError, match="shape"):
        model.write_file(1, 1, np.zeros(shape, np.uint16), EMPTY)


@pytest.mark.parametrize("version", [1, 3])
def test_a_file_of_the_other_version_is_refused(version):
    data = stored("1x1", version)
    with pytest.raises(errors.InvalidArgumentError, match="another form"):
        EntropyModel(entropy_bin(4 - version)).read_file(data, parse_file(data))


# --------------------------------------------------------------------------------------------------- whole codecs


@pytest.fixture(scope="module")
def bundles(toy_bundle: Path, tmp_path_factory) -> tuple[Path, Path]:
    """The toy bundle, and the same with frequencies of tokens."""
    coded = tmp_path_factory.mktemp("coded") / "toy"
    shutil.copytree(toy_bundle, coded)
    tables = EntropyTables.from_bytes((coded / "entropy.bin").read_bytes())
    (coded / "entropy.bin").write_bytes(with_token_frequencies(tables, np.random.default_rng(1)).to_bytes())
    seal(coded)
    return toy_bundle, coded


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(width).integers(0, 256, (-(-height // 64), -(-width // 64), 3), dtype=np.uint8)
    return coarse.repeat(64, 0).repeat(64, 1)[:height, :width]


def test_pictures_and_previews_are_those_of_packed_tokens(bundles):
    packed, coded = (dlf.Codec(bundle, backend="onnxruntime") for bundle in bundles)
    images = [photograph(300, 257), photograph(280, 500), photograph(256, 256)]
    for image in images:
        one, two = packed.encode(image), coded.encode(image)
        assert (dlf.info(one).version, dlf.info(two).version) == (1, 3)
        np.testing.assert_array_equal(coded.decode(two), packed.decode(one))
        np.testing.assert_array_equal(coded.decode(two[:-3], detail=False), packed.decode(one[:-3], detail=False))
    files = coded.encode_many(images)
    assert files == [coded.encode(image) for image in images]
    for decoded, file in zip(coded.decode_many(files), files, strict=True):
        np.testing.assert_array_equal(decoded, coded.decode(file))


def test_a_damaged_file_of_several_is_named(bundles):
    codec = dlf.Codec(bundles[1], backend="onnxruntime", checksum=False)
    file = codec.encode(photograph(10, 10))
    header = dlf.info(file).bytes.header
    with pytest.raises(errors.StreamCorruptError) as refused:
        codec.decode_many([file, file[:header] + bytes(4) + file[header + 4 :]])
    assert refused.value.index == 1


def test_a_file_of_the_other_version_is_of_another_model(bundles):
    """Also with the right fingerprint."""
    codec = dlf.Codec(bundles[1], backend="onnxruntime")
    forged = write_file(
        width=1,
        height=1,
        fingerprint=int(json.loads((bundles[1] / "manifest.json").read_text())["fingerprint"], 16),
        token_bits=6,
        tokens=np.zeros((1, 32), np.uint16),
        detail=EMPTY,
    )
    with pytest.raises(errors.WrongModelError):
        codec.decode(forged)
