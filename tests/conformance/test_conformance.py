"""Every implementation of the entropy core reproduces the committed vectors."""

import hashlib

import numpy as np
import pytest
from helpers.conformance import (
    FOLDER,
    SIZES,
    WITH_STEPS,
    entropy_bin,
    entropy_tables,
    latent,
    map_size,
    prior_steps,
    python_write_file,
    tokens,
    vectors,
)
from helpers.entropy import python_encode_detail, python_rans_decode, python_rans_encode

from dlf.kernels.entropy_params_reference import entropy_params
from dlf.runtime import errors, libdlf

ISAS = ("scalar", "avx2", "avx512", "neon")


@pytest.fixture(params=ISAS)
def model(request, monkeypatch) -> libdlf.EntropyModel:
    """The C++ core on each instruction set in turn."""
    monkeypatch.setenv("DLF_ISA", request.param)
    try:
        return libdlf.EntropyModel(entropy_bin())
    except errors.InvalidArgumentError:
        pytest.skip(f"this processor has no {request.param}")


def stored(name: str) -> bytes:
    return (FOLDER / f"{name}.dlf").read_bytes()


def test_hashes():
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    assert {line.split()[1] for line in lines} == {"entropy.bin", *(f"{name}.dlf" for name in SIZES)}
    for line in lines:
        digest, name = line.split()
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name


def test_the_vectors_exercise_the_coder():
    """Coded and skipped symbols, escapes, negative and large values, many CDFs."""
    symbols, indexes = vectors()["255x257.symbols"], vectors()["255x257.indexes"]
    bounds = np.array([len(f) // 2 - 1 for f in entropy_tables().frequencies])
    coded = indexes >= 0
    assert 0.1 < coded.mean() < 0.9
    assert len(np.unique(indexes)) > 50
    assert (np.abs(symbols[coded]) > bounds[indexes[coded]]).any()
    assert symbols.min() < -5 and symbols.max() > 5


@pytest.mark.parametrize("name", SIZES)
def test_core_decodes(model, name):
    data, (width, height) = stored(name), SIZES[name]
    info = libdlf.parse_file(data)
    assert (info.width, info.height, info.fingerprint) == (width, height, model.fingerprint)
    np.testing.assert_array_equal(libdlf.unpack_tokens(data, info), tokens(name))
    y_hat = model.decode_detail(libdlf.detail_stream(data, info), *map_size(name))
    assert hashlib.sha256(y_hat.astype("<f4").tobytes()).digest() == vectors()[f"{name}.y_hat_sha256"].tobytes()


@pytest.mark.parametrize("name", SIZES)
def test_core_encodes(model, name):
    width, height = SIZES[name]
    detail, y_hat = model.encode_detail_with_reconstruction(latent(name))
    assert hashlib.sha256(y_hat.astype("<f4").tobytes()).digest() == vectors()[f"{name}.y_hat_sha256"].tobytes()
    data = libdlf.write_file(
        width=width,
        height=height,
        fingerprint=model.fingerprint,
        token_bits=model.token_bits,
        tokens=tokens(name),
        detail=detail,
    )
    assert data == stored(name)


@pytest.mark.parametrize("name", SIZES)
def test_numpy_and_python_encode(name):
    detail, y_hat = python_encode_detail(entropy_tables(), latent(name))
    assert hashlib.sha256(y_hat.astype("<f4").tobytes()).digest() == vectors()[f"{name}.y_hat_sha256"].tobytes()
    assert python_write_file(*SIZES[name], tokens(name), 6, detail) == stored(name)


@pytest.mark.parametrize("name", WITH_STEPS)
def test_core_prior(model, name):
    for step in prior_steps(name):
        indexes, means = model.prior_step(step.number, step.r)
        np.testing.assert_array_equal(indexes, step.indexes)
        np.testing.assert_array_equal(means, step.means)


@pytest.mark.parametrize("name", WITH_STEPS)
def test_numpy_prior(name):
    for step in prior_steps(name):
        indexes, means = entropy_params(entropy_tables(), step.number, step.r)
        np.testing.assert_array_equal(indexes, step.indexes)
        np.testing.assert_array_equal(means, step.means)


@pytest.mark.parametrize("name", WITH_STEPS)
def test_coders(model, name):
    symbols, indexes = vectors()[f"{name}.symbols"], vectors()[f"{name}.indexes"]
    stream = libdlf.detail_stream(stored(name), libdlf.parse_file(stored(name)))
    assert model.rans_encode(symbols, indexes) == stream
    np.testing.assert_array_equal(model.rans_decode(stream, indexes), symbols)
    frequencies = entropy_tables().frequencies
    assert python_rans_encode(frequencies, symbols.tolist(), indexes.tolist()) == stream
    assert python_rans_decode(frequencies, stream, indexes.tolist()) == symbols.tolist()
