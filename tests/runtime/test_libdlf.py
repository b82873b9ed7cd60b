"""The binding: where the library is found, how its results become exceptions and what it refuses itself."""

import hashlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from helpers.entropy import random_tables

from dlf.runtime import errors, libdlf


@pytest.fixture(scope="module")
def model() -> libdlf.EntropyModel:
    return libdlf.EntropyModel(random_tables(np.random.default_rng(0), 8, entries=20, dim=5).to_bytes())


def test_library_and_header_are_found():
    assert libdlf.library_path().is_file()
    assert (libdlf.include_path() / "dlf.h").is_file()


def test_missing_installation_says_what_to_do(monkeypatch):
    monkeypatch.setattr(libdlf, "__file__", "/nowhere/libdlf.py")
    monkeypatch.setattr(metadata, "files", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install"):
        libdlf.library_path()


def test_version_is_the_packages():
    assert libdlf.version() == metadata.version("dlf")


def test_import_does_not_load_the_library():
    code = "import dlf.runtime.libdlf as libdlf; print(libdlf.library.cache_info().currsize)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "0"


def test_result_codes_are_the_headers():
    header = (libdlf.include_path() / "dlf.h").read_text()
    codes = {name: int(code) for name, code in re.findall(r"DLF_ERROR_(\w+) = (\d+)", header)}
    assert codes.pop("BUFFER_TOO_SMALL") == 3  # nothing in Python hands its own buffers over
    assert set(codes.values()) == set(errors.BY_CODE)
    for name, code in codes.items():
        assert errors.BY_CODE[code].__name__.lower() == name.replace("_", "").lower() + "error"


def test_every_result_has_its_own_text():
    texts = {libdlf.library().dlf_result_string(code) for code in (0, 3, *errors.BY_CODE)}
    assert len(texts) == len(errors.BY_CODE) + 2
    assert libdlf.library().dlf_result_string(12345) == b"an unknown result"


def test_properties(model):
    assert (model.channels, model.codebook_size, model.codebook_dim, model.token_bits, model.cdfs) == (8, 20, 5, 5, 256)


def test_fingerprint_is_the_first_two_bytes_of_the_hash(model):
    data = random_tables(np.random.default_rng(0), 8, entries=20, dim=5).to_bytes()
    assert f"{model.fingerprint:04x}" == hashlib.sha256(data).hexdigest()[:4]


def test_arrays_need_not_be_dense(model):
    y = np.random.default_rng(1).normal(size=(8, 16, 8)).astype(np.float32).transpose(0, 2, 1)
    stream, y_hat = model.encode_detail_with_reconstruction(y)
    again = model.encode_detail(np.ascontiguousarray(y))
    assert stream == again
    np.testing.assert_array_equal(model.decode_detail(stream, 8, 16), y_hat)


def test_a_model_is_shared_between_threads(model):
    rng = np.random.default_rng(2)
    ys = [rng.normal(size=(8, 8, 8)).astype(np.float32) for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        streams = list(pool.map(model.encode_detail, ys))
    assert streams == [model.encode_detail(y) for y in ys]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode_detail(np.zeros((4, 8, 8), np.float32)), r"y has shape \(4, 8, 8\), not \(8, any, any\)"),
        (lambda m: m.encode_detail(np.zeros((8, 8, 8))), "float64, not float32"),
        (lambda m: m.encode_detail(np.zeros((8, 8, 7), np.float32)), "8x7"),
        (lambda m: m.vq_lookup(np.zeros((1, 5, 31), np.float32)), "z has shape"),
        (lambda m: m.vq_embed(np.zeros((1, 32), np.int32)), "int32, not uint16"),
        (lambda m: m.rans_encode(np.zeros(3, np.int32), np.zeros(2, np.int16)), "indexes has shape"),
        (lambda m: m.rans_decode(b"", np.zeros((2, 2), np.int16)), "indexes has shape"),
        (lambda m: m.prior_step(4, np.zeros((8, 8, 8), np.int32)), "step is 4"),
        (lambda m: m.prior_step(0, np.zeros((8, 8), np.int32)), "r has shape"),
        (lambda m: m.prior_step(0, np.zeros((8, 8, 6), np.int32)), "8x6"),
    ],
)
def test_wrong_arguments_are_refused(model, call, message):
    with pytest.raises(errors.InvalidArgumentError, match=message):
        call(model)


@pytest.mark.parametrize(("data", "kind"), [(b"", errors.BundleBrokenError), (b"PK\3\4" + bytes(50), errors.BundleForeignError)])
def test_a_refused_model_says_what_to_do(data, kind):
    with pytest.raises(kind, match="again"):
        libdlf.EntropyModel(data)


def test_no_memory_is_an_error_of_its_own():
    """In its own process, with 2 bytes of memory left for each value; the core needs 4."""
    code = """
import resource
import numpy as np
from helpers.entropy import identity_tables
from dlf.runtime import errors, libdlf
model = libdlf.EntropyModel(identity_tables().to_bytes())
y = np.zeros((4, 2048, 2048), np.float32)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + y.nbytes // 2,) * 2)
try:
    model.encode_detail(y)
except errors.OutOfMemoryError:
    print("refused")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.stdout.strip() == "refused", run.stderr
