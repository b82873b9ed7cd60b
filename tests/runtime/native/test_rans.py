"""The rANS coder, compared with the reference coder's streams and a second implementation."""

import numpy as np
import pytest
from helpers.entropy import VECTORS, python_rans_decode, python_rans_encode, random_tables, reference_frequencies
from hypothesis import given, settings
from hypothesis import strategies as st

from dlf.runtime import errors
from dlf.runtime.libdlf import EntropyModel

MAX_SYMBOL = 1 << 20
INITIAL = (1 << 23).to_bytes(4, "little")
CASES = ("typical", "one", "zeros_low_scale", "escapes", "extremes", "rare", "all_skipped", "empty")


@pytest.fixture(scope="module")
def model() -> EntropyModel:
    return EntropyModel(random_tables(np.random.default_rng(0), channels=4).to_bytes())


@pytest.fixture(scope="module")
def vectors():
    with np.load(VECTORS) as data:
        return dict(data)


def streams_of(coded):
    symbols, indexes = zip(*coded, strict=True) if coded else ((), ())
    return np.array(symbols, np.int32), np.array(indexes, np.int16)


coded_symbols = st.lists(
    st.tuples(
        st.one_of(st.integers(-3, 3), st.integers(-60, 60), st.integers(-MAX_SYMBOL, MAX_SYMBOL)),
        st.integers(-1, 255),
    ),
    max_size=60,
)


@pytest.mark.parametrize("name", CASES)
def test_reference_streams(model, vectors, name):
    symbols, indexes = vectors[f"{name}.symbols"], vectors[f"{name}.indexes"]
    stream = vectors[f"{name}.stream"].tobytes()
    assert stream[0] == 1  # the reference's count of streams, which is not part of ours
    assert model.rans_encode(symbols, indexes) == stream[1:]
    np.testing.assert_array_equal(model.rans_decode(stream[1:], indexes), symbols)


def test_all_reference_cases_are_tested(vectors):
    assert {f"{name}.stream" for name in CASES} == {key for key in vectors if key.endswith(".stream")}


def test_golden_detail_stream(model):
    """The released coder's stream of a whole image; its scale -> index formula is the specification's, in float32."""
    with np.load(VECTORS.parent / "golden_mini7_512x256.npz") as golden:
        scales = np.concatenate([golden[f"scales_{step}"].ravel() for step in range(4)])
        symbols = np.concatenate([golden[f"symbols_{step}"].ravel() for step in range(4)])
        stream = golden["detail_stream"].tobytes()
    low = np.log(np.float32(0.11))
    width = (np.log(np.float32(64)) - low) / np.float32(255)
    indexes = np.clip(np.trunc((np.log(np.maximum(scales, np.float32(1e-5))) - low) / width), 0, 255).astype(np.int16)
    indexes[scales < np.float32(0.12)] = -1
    assert model.rans_encode(symbols, indexes) == stream[1:]
    np.testing.assert_array_equal(model.rans_decode(stream[1:], indexes), symbols)


@given(coded_symbols)
@settings(max_examples=200, deadline=None)
def test_second_implementation(model, coded):
    symbols, indexes = streams_of(coded)
    frequencies = reference_frequencies()
    stream = model.rans_encode(symbols, indexes)
    assert stream == python_rans_encode(frequencies, symbols, indexes)
    want = np.where(indexes < 0, 0, symbols)
    np.testing.assert_array_equal(model.rans_decode(stream, indexes), want)
    assert python_rans_decode(frequencies, stream, indexes) == want.tolist()


@given(data=st.binary(max_size=40), indexes=st.lists(st.integers(-1, 255), max_size=24))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_refused_or_the_only_spelling(model, data, indexes):
    indexes = np.array(indexes, np.int16)
    try:
        symbols = model.rans_decode(data, indexes)
    except (errors.TruncatedError, errors.TrailingBytesError, errors.StreamCorruptError):
        return
    assert model.rans_encode(symbols, indexes) == data


@given(coded=coded_symbols, data=st.data())
@settings(max_examples=200, deadline=None)
def test_pieces_are_the_whole(model, coded, data):
    symbols, indexes = streams_of(coded)
    ends = sorted(data.draw(st.lists(st.integers(0, len(indexes)), max_size=3)))
    decoder = model.rans_decoder(model.rans_encode(symbols, indexes))
    pieces = [decoder.get(piece) for piece in np.split(indexes, ends)]
    decoder.finish()
    np.testing.assert_array_equal(np.concatenate(pieces), np.where(indexes < 0, 0, symbols))


@given(data=st.binary(max_size=40), indexes=st.lists(st.integers(-1, 255), max_size=24), end=st.integers(0, 24))
@settings(max_examples=300, deadline=None)
def test_pieces_are_refused_as_the_whole_is(model, data, indexes, end):
    indexes = np.array(indexes, np.int16)
    outcomes = []
    for pieces in ([indexes], [indexes[:end], indexes[end:]]):
        try:
            decoder = model.rans_decoder(data)
            symbols = [symbol for piece in pieces for symbol in decoder.get(piece).tolist()]
            decoder.finish()
            outcomes.append(symbols)
        except errors.DLFError as error:
            outcomes.append(type(error))
    try:
        whole = model.rans_decode(data, indexes).tolist()
    except errors.DLFError as error:
        whole = type(error)
    assert outcomes == [whole] * 2


def test_pieces_that_end_early_are_refused(model):
    stream = model.rans_encode(np.array([3, -2], np.int32), np.array([40, 50], np.int16))
    decoder = model.rans_decoder(stream)
    decoder.get(np.array([40], np.int16))
    with pytest.raises((errors.TrailingBytesError, errors.StreamCorruptError)):
        decoder.finish()


@pytest.mark.parametrize("index", [-2, 256])
def test_a_piece_with_an_index_that_is_no_cdf_is_refused(model, index):
    decoder = model.rans_decoder(INITIAL)
    with pytest.raises(errors.InvalidArgumentError):
        decoder.get(np.array([index], np.int16))


@given(coded=coded_symbols, data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_changed_stream_is_refused_or_another_value(model, coded, data):
    symbols, indexes = streams_of(coded)
    stream = bytearray(model.rans_encode(symbols, indexes))
    bit = data.draw(st.integers(0, 8 * len(stream) - 1))
    stream[bit // 8] ^= 1 << bit % 8
    try:
        got = model.rans_decode(bytes(stream), indexes)
    except (errors.TruncatedError, errors.TrailingBytesError, errors.StreamCorruptError):
        return
    assert not np.array_equal(got, np.where(indexes < 0, 0, symbols))


def test_every_prefix_of_a_stream_is_refused(model, vectors):
    indexes = vectors["escapes.indexes"]
    stream = vectors["escapes.stream"].tobytes()[1:]
    for end in range(len(stream)):
        with pytest.raises(errors.TruncatedError if end < 4 else (errors.TruncatedError, errors.StreamCorruptError)):
            model.rans_decode(stream[:end], indexes)


def test_trailing_bytes_are_refused(model):
    with pytest.raises(errors.TrailingBytesError):
        model.rans_decode(INITIAL + b"\0", np.array([-1], np.int16))


@pytest.mark.parametrize("state", [0, (1 << 23) - 1, (1 << 23) + 1, 1 << 31, 2**32 - 1])
def test_a_state_that_is_not_final_is_refused(model, state):
    with pytest.raises(errors.StreamCorruptError):
        model.rans_decode(state.to_bytes(4, "little"), np.array([], np.int16))


@pytest.mark.parametrize("emitted", [0, 1])
def test_a_first_state_that_no_encoder_leaves_is_refused(model, emitted):
    """One symbol, decoded from 4 bytes where the encoder writes 5, or the reverse, would end in the right state too."""
    target = (1 << 23) >> (8 * emitted)
    index, symbol, start, frequency = next(
        (index, symbol, int(cdf[:symbol].sum()), int(cdf[symbol]))
        for index, cdf in enumerate(reference_frequencies())
        for symbol in range(len(cdf) - 1)
        if (1 << 23) // 65536 < cdf[symbol] <= 256 * 4**emitted and cdf[symbol] > 256 * emitted
    )
    state = (target // frequency << 16) + target % frequency + start
    assert not 1 << 23 <= state < 1 << 31
    stream = state.to_bytes(4, "little") + bytes(emitted)
    indexes = np.array([index], np.int16)
    assert python_rans_decode(reference_frequencies(), stream, indexes) == [symbol - len(reference_frequencies()[index]) // 2 + 1]
    with pytest.raises(errors.StreamCorruptError):
        model.rans_decode(stream, indexes)


def raw_stream(frequencies, groups):
    """A stream of the escape of a CDF and then raw groups, whatever they say."""
    start, frequency = int(frequencies[:-1].sum()), int(frequencies[-1])
    x, emitted = 1 << 23, []
    for low, freq, bits in reversed([(start, frequency, 16), *((group, 1, 2) for group in groups)]):
        while x >= freq << (31 - bits):
            emitted.append(x & 0xFF)
            x >>= 8
        x = (x // freq << bits) + x % freq + low
    return x.to_bytes(4, "little") + bytes(reversed(emitted))


@pytest.mark.parametrize(
    ("groups", "value"),
    [
        ([0], 51),  # raw 0
        ([1, 1], -51),  # raw 1
        ([1, 2], 52),  # raw 2
        ([3, 0, 0, 0, 1], 59),  # raw 16, in three groups
    ],
)
def test_escapes(model, groups, value):
    stream = raw_stream(reference_frequencies()[255], groups)  # its c is 50
    assert model.rans_decode(stream, np.array([255], np.int16)) == [value]


@pytest.mark.parametrize(
    "groups",
    [
        [3, 3, 3, 2, *[3] * 10, 1],  # raw 2^21 - 1, the value -2^20 - 50
        [1, 0],  # raw 0 in one group
        [2, 1, 0],  # raw 1 in two
        [3, 3, 3, 3, 0, *[1] * 12],  # 12 groups
        [3] * 200,  # a count without an end
    ],
)
def test_escapes_that_no_encoder_writes_are_refused(model, groups):
    stream = raw_stream(reference_frequencies()[255], groups)
    with pytest.raises(errors.StreamCorruptError):
        model.rans_decode(stream, np.array([255], np.int16))


@pytest.mark.parametrize("value", [-MAX_SYMBOL, MAX_SYMBOL])
def test_largest_symbols(model, value):
    indexes = np.array([0, 255], np.int16)
    symbols = np.array([value, value], np.int32)
    np.testing.assert_array_equal(model.rans_decode(model.rans_encode(symbols, indexes), indexes), symbols)


@pytest.mark.parametrize(
    ("symbol", "index"), [(MAX_SYMBOL + 1, 0), (-MAX_SYMBOL - 1, 0), (2**31 - 1, 3), (-(2**31), 3), (0, 256), (0, -2)]
)
def test_encoder_refuses(model, symbol, index):
    with pytest.raises(errors.InvalidArgumentError):
        model.rans_encode(np.array([symbol], np.int32), np.array([index], np.int16))


@pytest.mark.parametrize("index", [256, -2])
def test_decoder_refuses_indexes(model, index):
    with pytest.raises(errors.InvalidArgumentError):
        model.rans_decode(INITIAL, np.array([index], np.int16))


def test_incompressible_input_grows_the_buffer(model):
    """The reference coder overruns its buffer here: every symbol is the rarest, and then some raw groups."""
    symbols = np.full(5000, MAX_SYMBOL, np.int32)
    indexes = np.zeros(5000, np.int16)
    stream = model.rans_encode(symbols, indexes)
    assert len(stream) > 4 * 5000
    np.testing.assert_array_equal(model.rans_decode(stream, indexes), symbols)
