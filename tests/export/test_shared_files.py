"""Equal files of the bundles of one folder are stored once."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.bundle import make_toy_bundle, seal

import dlf
from dlf.export.shared_files import share

IMAGE = np.full((20, 30, 3), 99, np.uint8)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two models that share a large file, and one that only they have."""
    first, second = tmp_path / "first", tmp_path / "second"
    weights = np.random.default_rng(0).bytes(5000)
    for seed, bundle in enumerate((first, second)):
        make_toy_bundle(bundle, seed)
        (bundle / "weights").write_bytes(weights)
        (bundle / "own").write_bytes(np.random.default_rng(seed + 1).bytes(5000))
        seal(bundle)
    return first, second


def same(one: Path, other: Path, name: str) -> bool:
    return (one / name).samefile(other / name)


def test_equal_files_become_one_and_the_codec_reads_on(two: tuple[Path, Path]) -> None:
    first, second = two
    before = {path.name: path.read_bytes() for path in second.iterdir()}
    encoded = dlf.Codec(second, threads=1).encode(IMAGE)
    assert share(second) == 5000
    assert {path.name: path.read_bytes() for path in second.iterdir()} == before
    assert same(first, second, "weights")
    assert not same(first, second, "own")
    assert not same(first, second, "generator.onnx")  # equal, and smaller than a block
    assert dlf.Codec(second, threads=1).encode(IMAGE) == encoded
    assert share(second) == 0


def test_damaged_file_beside_is_not_taken(two: tuple[Path, Path]) -> None:
    first, second = two
    (first / "weights").write_bytes(bytes(5000))
    assert share(second) == 0
    assert (second / "weights").read_bytes() != bytes(5000)


@pytest.mark.parametrize("manifest", [b"", b"[]", b'{"files": {"x": 1}}', b'{"files": {"gone": {"sha256": "00"}}}'])
def test_other_folders_are_passed_over(two: tuple[Path, Path], manifest: bytes) -> None:
    first, second = two
    (first / "manifest.json").write_bytes(manifest)
    assert share(second) == 0


def test_nothing_is_linked_where_the_file_system_cannot(two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links")

    monkeypatch.setattr(os, "link", refuse)
    assert share(two[1]) == 0


def test_new_files_do_not_change_those_of_others(two: tuple[Path, Path]) -> None:
    first, second = two
    share(second)
    kept = (first / "weights").read_bytes()
    shutil.rmtree(second)
    assert (first / "weights").read_bytes() == kept
