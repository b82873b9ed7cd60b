"""Compiled stages that are kept: used by the next codec, never trusted when damaged, never in the way, bounded."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bundle import LoneStage

import dlf
from dlf.runtime.backends import compiled_cache
from dlf.runtime.backends.choice import open_backend
from dlf.runtime.bundles import builtin

IMAGE = np.random.default_rng(0).integers(0, 256, (256, 300, 3), np.uint8)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: Any) -> Path:
    """The folder of compiled stages, empty at first."""
    folder = tmp_path / "cache" / "compiled"
    monkeypatch.setattr(compiled_cache, "folder", lambda: folder)
    return folder


def round_trip(bundle: Path) -> tuple[bytes, np.ndarray]:
    pytest.importorskip("openvino")
    with dlf.Codec(bundle, "openvino", threads=1) as codec:
        data = codec.encode(IMAGE)
        return data, codec.decode(data)


def without_compiling(bundle: Path, monkeypatch: Any) -> tuple[bytes, np.ndarray]:
    from dlf.runtime.backends.openvino import OpenVINOBackend

    def fail(*_: Any) -> None:
        raise AssertionError("a stage was compiled")

    with monkeypatch.context() as patch:
        patch.setattr(OpenVINOBackend, "_compile", fail)
        return round_trip(bundle)


def test_the_next_codec_compiles_nothing_and_gives_the_same(kept: Path, monkeypatch: Any) -> None:
    data, image = round_trip(builtin.path())
    assert len(list(kept.iterdir())) == 4  # stages
    assert kept.stat().st_mode & 0o777 == 0o700
    again, same = without_compiling(builtin.path(), monkeypatch)
    assert again == data
    np.testing.assert_array_equal(same, image)


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign"])
def test_what_cannot_be_used_is_written_again(toy_bundle: Path, kept: Path, monkeypatch: Any, damage: str) -> None:
    data, image = round_trip(toy_bundle)
    for path in kept.iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        if damage == "foreign":
            compiled_cache.write(path, b"of another release")
        else:
            path.write_bytes({"flipped": content, "cut": content[:40], "empty": b""}[damage])
    with pytest.raises(dlf.BackendFailedError, match="a stage was compiled"):
        without_compiling(toy_bundle, monkeypatch)
    for again in (round_trip(toy_bundle), without_compiling(toy_bundle, monkeypatch)):
        assert again[0] == data
        np.testing.assert_array_equal(again[1], image)


def test_damaged_weights_are_refused_all_the_same(bundle_copy: Path, kept: Path) -> None:
    round_trip(bundle_copy)
    graph = bundle_copy / "analysis.onnx"
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    graph.write_bytes(content)
    with pytest.raises(dlf.BundleBrokenError, match="SHA-256"):
        round_trip(bundle_copy)


def test_folder_that_cannot_be_written_is_no_failure(toy_bundle: Path, kept: Path) -> None:
    kept.parent.write_text("a file")
    round_trip(toy_bundle)


def test_large_stages_are_not_kept(toy_bundle: Path, kept: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("dlf.runtime.backends.openvino.LARGEST_KEPT_STAGE", 0)
    round_trip(toy_bundle)
    assert not kept.exists()


def test_all_that_it_depends_on_is_in_the_name(kept: Path, monkeypatch: Any) -> None:
    facts = ("stage", "openvino", "2026.1", {"threads": 1})
    others = [("other", *facts[1:]), (*facts[:2], "2026.2", facts[3]), (*facts[:3], {"threads": 2})]
    places = {compiled_cache.place(*each) for each in (facts, *others)}
    monkeypatch.setattr(compiled_cache, "_processor", lambda: ["another"])
    places.add(compiled_cache.place(*facts))
    assert len(places) == 5
    assert {path.parent for path in places} == {kept}


def test_what_was_not_used_for_longest_goes_first(kept: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(compiled_cache, "LIMIT", 3 * (100 + 32))
    for age, name in enumerate("dcba"):
        compiled_cache.write(kept / name, bytes(100))
        os.utime(kept / name, (1000 + age, 1000 + age))
        if name == "b":
            assert compiled_cache.read(kept / "d") == bytes(100)  # which is now the newest
    assert sorted(path.name for path in kept.iterdir()) == ["a", "b", "d"]


def test_stage_that_computes_something_else_is_not_taken(kept: Path, toy_bundle: Path) -> None:
    pytest.importorskip("openvino")
    backend = open_backend("openvino", 1)
    stages = [backend.load(LoneStage(bundle / "analysis.onnx"), "analysis") for bundle in (toy_bundle, builtin.path())]
    image = np.zeros((1, 3, 256, 256), np.float32)
    toy, other = (stage({"image": image})["y"] for stage in stages)
    assert toy.shape != other.shape or not np.array_equal(toy, other)
