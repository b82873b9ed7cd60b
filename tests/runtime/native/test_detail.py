"""Coding of a whole detail latent, compared with the steps written in Python."""

import dataclasses

import numpy as np
import pytest
from helpers.entropy import identity_tables, python_encode_detail, random_tables
from hypothesis import given, settings
from hypothesis import strategies as st

from dlf.runtime import errors
from dlf.runtime.libdlf import EntropyModel


@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.sampled_from([4, 8, 16]),
    height=st.sampled_from([8, 10, 16]),
    width=st.sampled_from([8, 14, 24]),
    spread_of_y=st.sampled_from([0.0, 1.0, 30.0, 1e7]),
)
@settings(max_examples=25, deadline=None)
def test_second_implementation(seed, channels, height, width, spread_of_y):
    rng = np.random.default_rng(seed)
    tables = random_tables(rng, channels)
    model = EntropyModel(tables.to_bytes())
    y = rng.normal(0, spread_of_y, (channels, height, width)).astype(np.float32)
    stream, y_hat = model.encode_detail_with_reconstruction(y)
    want_stream, want_y_hat = python_encode_detail(tables, y)
    assert stream == want_stream
    np.testing.assert_array_equal(y_hat, want_y_hat)
    np.testing.assert_array_equal(model.decode_detail(stream, height, width), y_hat)


def test_rounds_to_the_nearest_and_ties_to_even():
    ties = np.arange(-8, 8, 0.5, dtype=np.float32)
    near = np.concatenate([np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))])
    y = np.resize(np.concatenate([ties, near, np.array([1048575.5, -1048574.5, 1e-30, -1e-30], np.float32)]), (4, 8, 8))
    _, y_hat = EntropyModel(identity_tables().to_bytes()).encode_detail_with_reconstruction(y)
    np.testing.assert_array_equal(y_hat, np.rint(y))


def test_mean_is_taken_off_before_rounding():
    y = np.full((4, 8, 8), 0.75, np.float32)
    _, y_hat = EntropyModel(identity_tables(mean=96).to_bytes()).encode_detail_with_reconstruction(y)
    # 0.75 - 96/256 = 0.375 rounds to 0; what comes back is the mean.
    np.testing.assert_array_equal(y_hat, np.float32(0.375))


@pytest.mark.parametrize("value", [2.0**20, 1e9, np.finfo(np.float32).max])
@pytest.mark.parametrize("sign", [-1, 1])
def test_symbols_are_clamped(value, sign):
    model = EntropyModel(identity_tables().to_bytes())
    stream, y_hat = model.encode_detail_with_reconstruction(np.full((4, 8, 8), sign * value, np.float32))
    np.testing.assert_array_equal(y_hat, np.float32(sign * 2**20))
    np.testing.assert_array_equal(model.decode_detail(stream, 8, 8), y_hat)


def test_smallest_q():
    tables = identity_tables()
    tables.q[:] = np.finfo(np.float32).smallest_subnormal
    model = EntropyModel(tables.to_bytes())
    stream, y_hat = model.encode_detail_with_reconstruction(np.linspace(-1, 1, 256, dtype=np.float32).reshape(4, 8, 8))
    np.testing.assert_array_equal(model.decode_detail(stream, 8, 8), y_hat)


def test_nothing_coded_gives_the_means():
    tables = dataclasses.replace(random_tables(np.random.default_rng(5), 4), thresholds=np.full(256, 32767, np.int16))
    tables.indexes[:] = -1
    for block in tables.blocks:
        block.conv_out.b[:] = 0
        block.conv_out.m[:] = 0
    model = EntropyModel(tables.to_bytes())
    y = np.ones((4, 8, 8), np.float32)
    stream, y_hat = model.encode_detail_with_reconstruction(y)
    assert stream == (1 << 23).to_bytes(4, "little")
    np.testing.assert_array_equal(y_hat, python_encode_detail(tables, y)[1])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_encoder_refuses_what_is_not_finite(value):
    y = np.zeros((4, 8, 8), np.float32)
    y[3, 7, 7] = value
    with pytest.raises(errors.InvalidArgumentError, match="not finite"):
        EntropyModel(identity_tables().to_bytes()).encode_detail(y)


@pytest.fixture(scope="module")
def coded() -> tuple[EntropyModel, bytes, np.ndarray]:
    rng = np.random.default_rng(7)
    model = EntropyModel(random_tables(rng, 4).to_bytes())
    stream, y_hat = model.encode_detail_with_reconstruction(rng.normal(0, 1, (4, 8, 8)).astype(np.float32))
    return model, stream, y_hat


def test_every_prefix_is_refused(coded):
    model, stream, _ = coded
    for end in range(len(stream)):
        with pytest.raises(errors.TruncatedError if end < 4 else (errors.TruncatedError, errors.StreamCorruptError)):
            model.decode_detail(stream[:end], 8, 8)


def test_longer_stream_is_refused(coded):
    model, stream, _ = coded
    with pytest.raises(errors.TrailingBytesError):
        model.decode_detail(stream + b"\0", 8, 8)


def test_every_bit_flip_is_refused_or_seen(coded):
    """Some flips give another valid stream (a symbol's sign, for one); the file's checksum is there for those."""
    model, stream, y_hat = coded
    refused = 0
    for bit in range(8 * len(stream)):
        damaged = bytearray(stream)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert not np.array_equal(model.decode_detail(bytes(damaged), 8, 8), y_hat)
        except (errors.TruncatedError, errors.TrailingBytesError, errors.StreamCorruptError):
            refused += 1
    assert refused > 0.95 * 8 * len(stream)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_refused_or_decoded(coded, data):
    model, _, _ = coded
    try:
        y_hat = model.decode_detail(data, 8, 8)
    except (errors.TruncatedError, errors.TrailingBytesError, errors.StreamCorruptError):
        return
    assert np.isfinite(y_hat).all()


@pytest.mark.parametrize(("height", "width"), [(0, 8), (8, 6), (9, 8), (8, 65538), (2**31, 8)])
def test_sizes_that_no_map_has_are_refused(coded, height, width):
    model, stream, _ = coded
    with pytest.raises(errors.InvalidArgumentError, match="its sides"):
        model.decode_detail(stream, height, width)
