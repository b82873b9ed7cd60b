import re
from pathlib import Path

import numpy as np
import pytest
from helpers.bundle import labelled, make_toy_bundle, rated

import dlf
from dlf.runtime import bundles, libdlf
from dlf.runtime.backends import choice
from dlf.runtime.doctor import examine

GRAY = np.full((4, 4), 128, np.uint8)


@pytest.fixture
def both(toy_bundle, tmp_path) -> Path:
    for precision in ("fp32", "int8"):
        labelled(toy_bundle, tmp_path / "both" / f"toy-{precision}", precision)
    return tmp_path / "both"


def test_a_bundle_is_itself(toy_bundle):
    bundle, reason = bundles.choose(bundles.open_all(str(toy_bundle)), ("int8",))
    assert (bundle.path, reason) == (toy_bundle, "the only one")


@pytest.mark.parametrize(("order", "taken"), [(("fp16", "int8", "fp32"), "int8"), (("fp32", "int8"), "fp32")])
def test_first_precision_that_is_there_is_taken(both, order, taken):
    bundle, reason = bundles.choose(bundles.open_all(both), order)
    assert bundle.path == both / f"toy-{taken}"
    assert reason == "the fastest on this backend, of fp32, int8"


def test_codec_and_doctor_take_what_the_backend_runs_fastest(both, backend, caplog):
    caplog.set_level("INFO", "dlf")
    with dlf.Codec(both, backend) as codec:
        fastest = "int8" if backend == "onnxruntime" or libdlf.has_int8_dot_products() else "fp32"
        assert codec.bundle.path == both / f"toy-{fastest}"
        assert codec.decode(codec.encode(GRAY)).shape == (4, 4, 3)
    assert f"in {fastest} (the fastest on this backend, of fp32, int8) on {backend} (asked for, " in caplog.text
    model = examine(both, backend).model
    assert (model["folder"], model["precision"]) == (str(both / f"toy-{fastest}"), fastest)
    assert model["reason"] == "the fastest on this backend, of fp32, int8"


def test_folder_without_bundles_is_foreign(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(dlf.BundleForeignError, match="is not a bundle"):
        bundles.open_all(tmp_path)


def test_several_models_without_rates_are_refused(both):
    make_toy_bundle(both / "other", seed=1)
    with pytest.raises(dlf.BundleForeignError, match=r"several models, and the rate of other \(.*; name one"):
        bundles.open_all(both)


def test_model_of_the_highest_rate_is_taken(both, toy_bundle):
    rated(make_toy_bundle(both / "other", seed=1), 0.02)
    rated(both / "toy-int8", 0.01)
    assert list(bundles.open_all(both)) == ["fp32"]
    rated(both / "toy-int8", 0.03)
    assert sorted(bundles.open_all(both)) == ["fp32", "int8"]


def test_rate_that_is_no_number_is_refused(both):
    rated(both / "toy-fp32", "much")
    with pytest.raises(dlf.BundleBrokenError, match="toy-fp32"):
        bundles.open_all(both)


def test_two_bundles_of_one_precision_are_refused(both, toy_bundle):
    labelled(toy_bundle, both / "more", "int8")
    with pytest.raises(dlf.BundleForeignError, match=r"two bundles of one model in int8, more and toy-int8; name one"):
        bundles.open_all(both)


def test_precisions_that_the_backend_does_not_know_are_refused(both):
    with pytest.raises(dlf.BundleForeignError, match=r"in fp32, int8, and fp8 are known"):
        bundles.choose(bundles.open_all(both), ("fp8",))


def test_doctor_without_a_backend_names_the_precisions_of_bundles_alone(toy_bundle, tmp_path, monkeypatch):
    for label in ("fp8", "fp4"):
        labelled(toy_bundle, tmp_path / label, label)
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    facts = [check.fact for check in examine(tmp_path).checks if check.name == "bundle"]
    assert len(facts) == 1
    known = re.search(r"and ([a-z0-9, ]+) are known", facts[0])
    assert known and set(known[1].split(", ")) == {"fp32", "fp16", "int8"}


def test_broken_bundle_is_not_passed_over(both):
    (both / "toy-int8" / "entropy.bin").write_bytes(b"x")
    with pytest.raises(dlf.BundleBrokenError, match="toy-int8"):
        bundles.open_all(both)
