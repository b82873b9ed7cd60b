"""A folder of bundles as a model in C: the one is opened that Python would open, and refused is what Python refuses."""

from ctypes import pointer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bundle import labelled, make_toy_bundle, rated
from helpers.native import Backend, Context, Model, openvino_library

import dlf
from dlf.runtime import bundles, errors, libdlf
from dlf.runtime.backends.choice import INSTALL, precisions
from dlf.runtime.libdlf_abi import FileInfo

GRAY = np.full((4, 4, 3), 128, np.uint8)


@pytest.fixture
def all_three(toy_bundle: Path, tmp_path: Path) -> Path:
    for precision in ("fp32", "fp16", "int8"):
        labelled(toy_bundle, tmp_path / "three" / precision, precision)
    return tmp_path / "three"


def opened(folder: Path, name: str) -> str:
    """The precision of the bundle that is opened for an application's backend of this name."""
    backend = Backend(lambda stage, file: dict)
    backend.table.name = name.encode()
    precision: bytes = Model(folder, backend=backend.pointer()).info()["precision"]
    return precision.decode()


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "tensorrt"])
def test_bundle_is_the_one_that_python_takes(all_three, name):
    assert opened(all_three, name) == precisions(name)[0]
    for precision in precisions(name)[0], precisions(name)[1]:
        (all_three / precision / "manifest.json").rename(all_three / precision / "no manifest")
    assert opened(all_three, name) == precisions(name)[2]


def test_built_in_backend_decodes_with_it_what_any_of_them_encodes(all_three):
    pytest.importorskip("openvino")
    model = Model(all_three, threads=1, openvino=str(openvino_library()).encode())
    assert model.info()["precision"].decode() == precisions("openvino")[0]
    data = dlf.Codec(all_three / "fp32", "openvino", threads=1).encode(GRAY)
    assert Context(model).decode(data).shape == GRAY.shape


def test_backend_that_dlf_does_not_know_gets_the_most_exact(all_three):
    assert opened(all_three, "own") == "fp32"
    (all_three / "fp32" / "manifest.json").unlink()
    assert opened(all_three, "own") == "fp16"


def test_single_bundle_is_taken_whatever_its_precision(toy_bundle, tmp_path):
    labelled(toy_bundle, tmp_path / "folder" / "odd", "fp8")
    assert opened(tmp_path / "folder", "openvino") == opened(tmp_path / "folder" / "odd", "openvino") == "fp8"


@pytest.fixture
def two_models(all_three: Path) -> Path:
    rated(make_toy_bundle(all_three / "another", seed=1), 0.02)
    for precision, rate in (("fp32", 0.01), ("fp16", 0.01), ("int8", 0.01)):
        rated(all_three / precision, rate)
    return all_three


def fingerprint(folder: Path, **options: Any) -> str:
    return f"{Model(folder, backend=Backend(lambda stage, file: dict).pointer(), **options).info()['fingerprint']:04x}"


def test_of_several_models_the_one_of_the_highest_rate_is_opened(two_models):
    assert fingerprint(two_models) == bundles.models(two_models).by_rate()[-1].fingerprint
    assert fingerprint(two_models) == dlf.Codec(two_models / "another").bundle.fingerprint
    rated(two_models / "another", 0.005)
    assert fingerprint(two_models) == dlf.Codec(two_models / "fp32").bundle.fingerprint


def test_of_several_models_the_one_is_opened_that_wrote_a_file(two_models, tmp_path):
    for name in ("another", "fp32"):
        codec = dlf.Codec(two_models / name, threads=1)
        header = FileInfo(fingerprint=int(codec.bundle.fingerprint, 16))
        assert fingerprint(two_models, file=pointer(header)) == codec.bundle.fingerprint
    foreign = FileInfo(fingerprint=0x1234)
    with pytest.raises(errors.WrongModelError, match=r"written with model 1234, and the folder .* holds models "):
        fingerprint(two_models, file=pointer(foreign))


def other_model(folder: Path, bundle: Path) -> None:
    make_toy_bundle(folder / "other", seed=1)


def same_precision(folder: Path, bundle: Path) -> None:
    labelled(bundle, folder / "more", "int8")


def unknown_precisions(folder: Path, bundle: Path) -> None:
    for precision in ("fp32", "fp16", "int8"):
        (folder / precision / "manifest.json").unlink()
    for precision in ("fp8", "fp4"):
        labelled(bundle, folder / precision, precision)


def broken(folder: Path, bundle: Path) -> None:
    (folder / "int8" / "entropy.bin").write_bytes(b"x")


def empty(folder: Path, bundle: Path) -> None:
    for precision in ("fp32", "fp16", "int8"):
        (folder / precision / "manifest.json").unlink()


def no_rate(folder: Path, bundle: Path) -> None:
    rated(make_toy_bundle(folder / "other", seed=1), "much")


@pytest.mark.parametrize("spoil", [other_model, no_rate, same_precision, unknown_precisions, broken, empty])
def test_what_python_refuses_is_refused(all_three, toy_bundle, spoil):
    spoil(all_three, toy_bundle)
    with pytest.raises(errors.DLFError) as python:
        bundles.choose(bundles.open_all(all_three), precisions("openvino"))
    with pytest.raises(errors.DLFError) as native:
        opened(all_three, "openvino")
    assert native.type is python.type
    assert words(native.value) == words(python.value)


def words(error: Exception) -> list[str]:
    """Of a message; bundles may be named in another order."""
    return sorted(str(error).replace(",", " ").replace(";", " ").split())


@pytest.mark.parametrize("dot_products", [True, False])
def test_order_has_every_backend_with_every_precision_once(dot_products):
    order = libdlf.backend_order(dot_products)
    assert sorted(order) == sorted((name, precision) for name in INSTALL for precision in ("fp32", "fp16", "int8"))
