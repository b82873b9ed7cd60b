"""Frequencies of tokens: counted as NumPy counts them, whole in integers, and shorter files that decode to the same."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.bundle import labelled, make_toy_bundle, toy_tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

import dlf
import dlf.export.bundle
import dlf.export.memory
import dlf.export.rate
import dlf.export.tf32
from dlf.export import token_statistics
from dlf.export.cli import app
from dlf.export.token_statistics import bits, frequencies
from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime import errors
from dlf.runtime.bundles import builtin, references
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.doctor.selftest import run
from dlf.runtime.images import pad_to_tiles

runner = CliRunner()


def photograph(seed: int, height: int = 256, width: int = 512) -> NDArray[np.uint8]:
    """Two tiles of a colour each."""
    return np.random.default_rng(seed).integers(0, 256, (1, 2, 3), np.uint8).repeat(256, 0).repeat(256, 1)[:height, :width]


def test_tokens_are_counted_by_place(toy_bundle: Path) -> None:
    photographs = [photograph(seed, 256 - seed) for seed in range(5)]
    counts = token_statistics.count(Bundle(toy_bundle), iter(photographs))
    codebook = EntropyTables.from_bytes((toy_bundle / "entropy.bin").read_bytes()).codebook
    expected = np.zeros((32, len(codebook)), int)
    for pixels in photographs:
        for tile in toy_tokens(toy_bundle, pad_to_tiles(pixels)[0], codebook):
            for place, token in enumerate(tile):
                expected[place, token] += 1
    np.testing.assert_array_equal(counts, expected)


@given(st.integers(2, 300).flatmap(lambda n: arrays(np.int64, (32, n), elements=st.sampled_from([0, 0, 0, 1, 7, 10**6]))))
@settings(max_examples=30, deadline=None)
def test_frequencies_are_whole_and_follow_the_counts(counts: NDArray[np.int64]) -> None:
    rows = frequencies(counts)
    assert rows.shape == counts.shape and rows.dtype == np.uint16
    assert rows.min() >= 1
    assert (rows.sum(1, dtype=int) == 65536).all()
    overall = counts.sum(0)
    not_rarer = (counts[:, :-1] >= counts[:, 1:]) & (overall[:-1] >= overall[1:])
    assert (rows.astype(int)[:, :-1] >= rows.astype(int)[:, 1:] - 1)[not_rarer].all()


@pytest.mark.parametrize("entries", [32768, 65536])
def test_a_codebook_as_large_as_the_format_allows(entries: int) -> None:
    counts = np.zeros((32, entries), np.int64)
    counts[:, 1] = 100
    rows = frequencies(counts)
    assert (rows.min(), set(rows.sum(1, dtype=int))) == (1, {65536})


@pytest.mark.parametrize(("own", "seen"), [(0.0, 40), (1.0, 40), (0.3, 400)])
def test_blending_foretells_other_photographs_as_well_as_counts_of_either_kind(own: float, seen: int) -> None:
    """Where all places are alike, as the counts of all do; where each has its own tokens, as the place's do."""
    rng = np.random.default_rng(0)
    shared = rng.dirichlet(np.full(256, 0.1))
    truth = np.stack([(1 - own) * shared + own * rng.dirichlet(np.full(256, 0.02)) for _ in range(32)])
    counts, others = (np.stack([rng.multinomial(n, row) for row in truth]) for n in (seen, 10000))

    def cost(shares: NDArray[np.float64]) -> float:
        return float(-(others * np.log2(shares / shares.sum(1, keepdims=True))).sum() / others.sum())

    together, apart = cost(np.tile(counts.sum(0) + 0.5, (32, 1))), cost(counts + 0.5)
    blended = bits(frequencies(counts), others)
    assert blended < min(together, apart) + 0.05


def test_bits_of_no_tokens() -> None:
    assert bits(np.full((32, 2), 32768), np.zeros((32, 2), int)) == 0


def test_the_bundle_writes_shorter_files_of_the_same_picture(tmp_path: Path) -> None:
    source, output = builtin.path(), tmp_path / "coded"
    image = photograph(0)
    token_statistics.add(source, output, [photograph(seed) for seed in range(8)])
    packed, coded = dlf.Codec(source, backend="onnxruntime"), dlf.Codec(output, backend="onnxruntime")
    files = packed.encode(image), coded.encode(image)
    assert len(files[1]) < len(files[0])
    np.testing.assert_array_equal(packed.decode(files[0]), coded.decode(files[1]))
    assert all(check.passed for check in run(coded.bundle, coded.backend))
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["fingerprint"] == f"{coded.bundle.entropy.fingerprint:04x}" != packed.bundle.fingerprint
    assert manifest["token_statistics"]["tiles"] == 16
    assert 0 < manifest["token_statistics"]["bits"] < math.log2(packed.bundle.entropy.codebook_size)  # packed
    assert {path.name for path in output.iterdir()} == {path.name for path in source.iterdir()}
    # Once more, of the bundle that has them.
    token_statistics.add(output, tmp_path / "again", [image])
    assert Bundle(tmp_path / "again").entropy.coded_tokens


def test_references_of_a_damaged_file_are_refused(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "references.npz").write_bytes(b"PK")
    entropy = Bundle(toy_bundle).entropy
    with pytest.raises(errors.BundleBrokenError):
        references.rewritten(tmp_path / "references.npz", entropy, entropy)


def test_a_bundle_of_lower_precision_is_refused(toy_bundle: Path, tmp_path: Path) -> None:
    labelled(toy_bundle, tmp_path / "half", "fp16")
    with pytest.raises(errors.ExportError, match="is in fp16"):
        token_statistics.add(tmp_path / "half", tmp_path / "out", [])
    assert not (tmp_path / "out").exists()


def test_a_codebook_of_one_entry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.ExportError, match="one entry"):
        token_statistics.add(make_toy_bundle(tmp_path / "one", entries=1), tmp_path / "out", [])


# --------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.fromarray(photograph(0)).save(folder / "a.png")
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, toy_bundle: Path) -> None:
    """A checkpoint's export writes the toy bundle; nothing is measured."""
    monkeypatch.setattr(
        dlf.export.bundle, "_fill", lambda _, folder, *__: shutil.copytree(toy_bundle, folder, dirs_exist_ok=True)
    )
    monkeypatch.setattr(dlf.export.memory, "record", lambda bundle, progress: None)
    monkeypatch.setattr(dlf.export.tf32, "measure", lambda folder, photographs, progress: None)
    monkeypatch.setattr(dlf.export.rate, "record", lambda bundle, photographs, threads: None)


@pytest.mark.usefixtures("quick")
def test_a_checkpoint_in_lower_precision_is_counted_in_fp32(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted: list[Bundle] = []

    def convert(source: Path, output: Path, **_: object) -> None:
        converted.append(Bundle(source))
        shutil.copytree(source, output)

    monkeypatch.setattr("dlf.export.checkpoint.load_checkpoint", lambda source: _Weightless())
    monkeypatch.setattr("dlf.export.convert.convert_bundle", convert)
    monkeypatch.setattr("dlf.export.parity.load_photographs", lambda folder: [])
    more = ["--precision", "fp16", "--token-statistics", str(photographs)]
    result = runner.invoke(app, [str(tmp_path / "some.ckpt"), "-o", str(tmp_path / "out" / "bundle"), *more])
    assert result.exit_code == 0, result.output
    assert (converted[0].precision, converted[0].entropy.coded_tokens) == ("fp32", True)
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["bundle"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["checkpoint", "bundle"])
def test_the_command(kind: str, toy_bundle: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlf.export.checkpoint.load_checkpoint", lambda source: _Weightless())
    source = toy_bundle if kind == "bundle" else tmp_path / "some.ckpt"
    output = tmp_path / "out" / "bundle"
    result = runner.invoke(app, [str(source), "-o", str(output), "--token-statistics", str(photographs)])
    assert result.exit_code == 0, result.output
    assert Bundle(output).entropy.coded_tokens
    assert [entry.name for entry in output.parent.iterdir()] == ["bundle"]


class _Weightless:
    def parameters(self) -> list[object]:
        return []


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--precision", "int8", "--token-statistics", "PHOTOGRAPHS"], 2, "share their entropy model"),
        (["--name", "x", "--token-statistics", "PHOTOGRAPHS"], 2, "only be converted"),
        (["--token-statistics", "EMPTY"], 1, "no folder with photographs"),
    ],
)
def test_the_command_refuses(
    more: list[str], code: int, message: str, toy_bundle: Path, photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    names = {"PHOTOGRAPHS": str(photographs), "EMPTY": str(tmp_path / "empty")}
    result = runner.invoke(app, [str(toy_bundle), "-o", str(tmp_path / "out"), *(names.get(word, word) for word in more)])
    assert result.exit_code == code
    assert message in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()
