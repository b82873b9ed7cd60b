"""Every implementation of the entropy core reproduces the committed vectors."""

import hashlib

import numpy as np
import pytest
from helpers.conformance import (
    FOLDER,
    FOLDERS,
    SIZES,
    WITH_STEPS,
    entropy_bin,
    entropy_tables,
    latent,
    map_size,
    prior_steps,
    python_write_file,
    stored,
    tokens,
    vectors,
)
from helpers.entropy import python_encode_detail, python_rans_decode, python_rans_encode, python_take_tokens

from dlf.kernels.entropy_params_reference import entropy_params
from dlf.runtime import errors, libdlf

ISAS = ("scalar", "avx2", "avx512", "neon")


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch) -> None:
    """Each instruction set in turn."""
    monkeypatch.setenv("DLF_ISA", request.param)
    try:
        libdlf.EntropyModel(entropy_bin())
    except errors.InvalidArgumentError:
        pytest.skip(f"this processor has no {request.param}")


@pytest.fixture
def model(isa) -> libdlf.EntropyModel:
    """The C++ core on it."""
    return libdlf.EntropyModel(entropy_bin())


def test_hashes():
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    names = ("entropy.bin", *(f"{name}.dlf" for name in SIZES))
    assert [line.split()[1] for line in lines] == [f"{f.relative_to(FOLDER) / n}" for f in FOLDERS.values() for n in names]
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


def test_the_vectors_have_tokens_of_all_frequencies():
    frequencies = entropy_tables(3).token_frequencies
    assert frequencies is not None
    used = frequencies[np.arange(32), tokens("2048x1365")]
    assert used.min() == 1 and used.max() > 32768


@pytest.mark.parametrize("version", FOLDERS)
@pytest.mark.parametrize("name", SIZES)
def test_core_decodes(isa, name, version):
    data, (width, height), model = stored(name, version), SIZES[name], libdlf.EntropyModel(entropy_bin(version))
    info = libdlf.parse_file(data)
    assert (info.width, info.height, info.fingerprint) == (width, height, model.fingerprint)
    assert (info.version, info.coded_tokens, model.coded_tokens) == (version, version == 3, version == 3)
    found, detail = model.read_file(data, info)
    np.testing.assert_array_equal(found, tokens(name))
    y_hat = model.decode_detail(detail, *map_size(name))
    assert hashlib.sha256(y_hat.astype("<f4").tobytes()).digest() == vectors()[f"{name}.y_hat_sha256"].tobytes()


@pytest.mark.parametrize("version", FOLDERS)
@pytest.mark.parametrize("name", SIZES)
def test_core_encodes(isa, name, version):
    model = libdlf.EntropyModel(entropy_bin(version))
    detail, y_hat = model.encode_detail_with_reconstruction(latent(name))
    assert hashlib.sha256(y_hat.astype("<f4").tobytes()).digest() == vectors()[f"{name}.y_hat_sha256"].tobytes()
    assert model.write_file(*SIZES[name], tokens(name), detail) == stored(name, version)


@pytest.mark.parametrize("name", SIZES)
def test_numpy_and_python_encode(name):
    detail, y_hat = python_encode_detail(entropy_tables(), latent(name))
    assert hashlib.sha256(y_hat.astype("<f4").tobytes()).digest() == vectors()[f"{name}.y_hat_sha256"].tobytes()
    for version in FOLDERS:
        assert python_write_file(*SIZES[name], tokens(name), 6, detail, version) == stored(name, version)


@pytest.mark.parametrize("name", SIZES)
def test_python_takes_tokens(name):
    data, frequencies = stored(name, 3), entropy_tables(3).token_frequencies
    assert frequencies is not None
    info = libdlf.parse_file(data)
    found, detail = python_take_tokens(frequencies, libdlf.detail_stream(data, info), info.tiles)
    np.testing.assert_array_equal(found, tokens(name))
    assert detail == libdlf.detail_stream(stored(name), libdlf.parse_file(stored(name)))


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
