"""A folder of models of several rates: which of them encodes, which file is taken, and which model decodes."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.bundle import labelled, make_toy_bundle, rated
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

import dlf
import dlf.pillow
from dlf.runtime.backends.choice import precisions
from dlf.runtime.cli import app
from dlf.runtime.rate import Rate

# The name of each model's bundle, and its rate: the order of names is another.
RATES = {"c": 0.01, "a": 0.02, "d": 0.03, "b": 0.04}


def noise(seed: int, height: int = 40, width: int = 30) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, (name, rate) in enumerate(RATES.items()):
        make_toy_bundle(folder / name, seed=seed)
        rated(folder / name, rate)
    labelled(folder / "a", folder / "a-int8", "int8")
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> list[dlf.Codec]:
    """A codec of each model by itself, the lowest rate first."""
    return [dlf.Codec(folder / name, threads=1) for name in RATES]


@pytest.fixture
def models(folder: Path) -> dlf.Codec:
    return dlf.Codec(folder, threads=1)


def test_qualities_are_ordered_by_rate(models, alone):
    assert models.qualities == tuple(codec.bundle.fingerprint for codec in alone)
    assert models.bundle.fingerprint == alone[-1].bundle.fingerprint
    assert alone[0].qualities == (alone[0].bundle.fingerprint,)


def test_each_quality_is_the_model_by_itself(models, alone):
    for quality, codec in enumerate(alone):
        assert models.encode(noise(0), quality=quality) == codec.encode(noise(0))
        assert models.encode_many([noise(0), noise(1)], quality=quality) == codec.encode_many([noise(0), noise(1)])
    assert models.encode(noise(0)) == alone[-1].encode(noise(0))


def test_a_file_is_decoded_by_the_model_that_wrote_it(models, alone):
    files = [codec.encode(noise(seed)) for seed in range(2) for codec in alone]
    expected = [codec.decode(file) for codec, file in zip(alone * 2, files, strict=True)]
    assert all(np.array_equal(models.decode(file), image) for file, image in zip(files, expected, strict=True))
    together = models.decode_many(files)
    assert all(np.array_equal(image, other) for image, other in zip(together, expected, strict=True))


def test_decoding_opens_no_other_model(folder, alone, tmp_path):
    """But that of the highest rate, of which a codec tells."""
    for name in RATES:
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "c").unlink()
    rated(make_toy_bundle(tmp_path / "c", seed=0), RATES["c"])
    (tmp_path / "c" / "entropy.bin").write_bytes(b"x")
    models = dlf.Codec(tmp_path, threads=1)
    assert np.array_equal(models.decode(alone[1].encode(noise(0))), alone[1].decode(alone[1].encode(noise(0))))
    with pytest.raises(dlf.BundleBrokenError):
        models.decode(alone[0].encode(noise(0)))


def test_target_takes_the_largest_file_that_is_not_above(models, alone, caplog):
    pictures = [noise(seed, 60 + 10 * seed, 50) for seed in range(3)]
    for picture in pictures:
        sizes = [len(codec.encode(picture)) for codec in alone]
        assert len(set(sizes)) > 1
        for target in {*sizes, *(size - 1 for size in sizes), *(size + 1 for size in sizes)} - {min(sizes) - 1}:
            fitting = max(size for size in sizes if size <= target)
            assert len(models.encode(picture, target_bytes=target)) == fitting
            assert len(models.encode(picture, target_bpp=(target + 0.5) * 8 / picture[..., 0].size)) == fitting
    assert not caplog.records
    one_by_one = [models.encode(picture, target_bytes=150) for picture in pictures]
    assert models.encode_many(pictures, target_bytes=150) == one_by_one


def test_smallest_is_taken_with_a_warning_where_all_are_above_the_target(models, alone, caplog):
    smallest = min(len(codec.encode(noise(0))) for codec in alone)
    assert len(models.encode(noise(0), target_bytes=smallest - 1)) == smallest
    assert f"at most {smallest - 1} bytes of this image; the smallest has {smallest}" in caplog.text


def test_precisions_of_a_model_are_one_quality(folder, backend, caplog):
    caplog.set_level("INFO", "dlf")
    codec = dlf.Codec(folder, backend, threads=1)
    codec.encode(noise(0), quality=1)
    best = next(precision for precision in precisions(backend) if precision in ("fp32", "int8"))
    assert f"in {best} (the fastest on this backend, of fp32, int8)" in caplog.text


def test_file_of_a_model_that_is_not_there_is_refused(models, toy_bundle, tmp_path):
    make_toy_bundle(tmp_path / "other", seed=9)
    data = dlf.Codec(tmp_path / "other").encode(noise(0))
    with pytest.raises(dlf.WrongModelError, match=rf"{data[2:4].hex()} .* holds models {', '.join(models.qualities)}; decode"):
        models.decode(data)


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        ({"quality": 4}, "quality is 4, and the model has 0 to 3"),
        ({"quality": -1}, "quality is -1; it must be a whole number, at least 0"),
        ({"target_bytes": 0}, "target_bytes is 0"),
        ({"target_bpp": float("nan")}, "target_bpp is nan"),
        ({"target_bpp": "0.1"}, "target_bpp is '0.1'"),
        ({"quality": 0.5}, "quality is 0.5"),
        ({"target_bytes": "400"}, "target_bytes is '400'"),
        ({"quality": 0, "target_bpp": 0.1}, "quality and target_bpp exclude each other"),
    ],
)
def test_rates_out_of_range_are_refused_before_the_image_is_looked_at(models, rate, message):
    with pytest.raises(dlf.InvalidArgumentError, match=message):
        models.encode("nowhere.png", **rate)
    with pytest.raises(dlf.InvalidArgumentError, match=message):
        models.encode_many(["nowhere.png"], **rate)


def test_no_target_is_too_high(models, alone):
    largest = max((codec.encode(noise(0)) for codec in alone), key=len)
    for target in (float("inf"), 1e308):
        assert models.encode(noise(0), target_bpp=target) == largest


def test_quality_of_a_single_model_is_zero(alone):
    assert alone[0].encode(noise(0), quality=0) == alone[0].encode(noise(0))
    with pytest.raises(dlf.InvalidArgumentError, match="has 0 alone"):
        Rate(quality=1).among(alone[0].qualities)


def test_models_without_a_rate_decode_and_have_no_qualities(folder, alone, tmp_path):
    (tmp_path / "b").symlink_to(folder / "b")
    make_toy_bundle(tmp_path / "a", seed=0)
    models = dlf.Codec(tmp_path, threads=1)
    data = alone[0].encode(noise(0))
    assert np.array_equal(models.decode(data), alone[0].decode(data))
    with pytest.raises(dlf.BundleForeignError, match=r"several models, and the rate of a \(.*dlf\.export\.rate"):
        models.encode(noise(0))


# ------------------------------------------------------------------------------------------------------------- command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def picture(tmp_path, monkeypatch, folder) -> Path:
    monkeypatch.setenv("DLF_MODEL", str(folder))
    Image.fromarray(noise(0)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_command_says_which_quality_it_took(picture, alone):
    result = run("encode", str(picture), "--quality", "1")
    assert result.exit_code == 0
    assert " bytes at quality 1 of 0..3, " in result.stderr
    assert picture.with_suffix(".dlf").read_bytes() == alone[1].encode(noise(0))
    assert '"quality": 3' in run("encode", str(picture), "--overwrite", "--json").stdout
    assert run("decode", str(picture.with_suffix(".dlf")), "-o", str(picture.with_suffix(".bmp"))).exit_code == 0


def test_command_aims_at_a_size(picture, alone):
    sizes = sorted(len(codec.encode(noise(0))) for codec in alone)
    assert run("encode", str(picture), "--target-bytes", str(sizes[2])).exit_code == 0
    assert picture.with_suffix(".dlf").stat().st_size == sizes[2]
    result = run("encode", str(picture), "--overwrite", "--target-bpp", "0.0001")
    assert result.exit_code == 0
    assert picture.with_suffix(".dlf").stat().st_size == sizes[0]
    assert "the smallest has" in result.stderr


@pytest.mark.parametrize("options", [["--quality", "4"], ["--quality", "1", "--target-bytes", "9"], ["--target-bpp", "0"]])
def test_command_refuses_rates_that_are_none(picture, options):
    assert run("encode", str(picture), *options).exit_code == 2


def test_pillow_saves_with_a_rate(folder, alone, tmp_path):
    Image.fromarray(noise(0)).save(tmp_path / "a.dlf", model=folder, quality=2, threads=1)
    assert (tmp_path / "a.dlf").read_bytes() == alone[2].encode(noise(0))


def test_models_are_listed(folder, alone):
    found = [json.loads(line) for line in run("models", "--model", str(folder), "--json").stdout.splitlines()]
    assert [(each["quality"], Path(each["path"]).name, each["precision"]) for each in found] == [
        (0, "c", "fp32"),
        (1, "a", "fp32"),
        (1, "a-int8", "int8"),
        (2, "d", "fp32"),
        (3, "b", "fp32"),
    ]
    assert [each["bits_per_pixel"] for each in found] == [0.01, 0.02, 0.02, 0.03, 0.04]
    assert found[0]["fingerprint"] == alone[0].bundle.fingerprint
    assert found[0]["bytes"] == sum(file.stat().st_size for file in (folder / "c").glob("[!m]*"))
    told = run("models", "--model", str(folder)).stdout
    assert f"quality 0: toy ({alone[0].bundle.fingerprint}) in fp32, 0.0100 bpp, licence: unknown, " in told
    assert "quality 0: built-in (dd4d) in fp32" in run("models").stdout


def test_models_without_an_order_have_no_quality(folder, tmp_path):
    (tmp_path / "b").symlink_to(folder / "b")
    make_toy_bundle(tmp_path / "a", seed=0)
    told = run("models", "--model", str(tmp_path)).stdout.splitlines()
    assert [line.partition(":")[0] for line in told] == ["no quality"] * 2
    assert "rate not measured" in told[1]


def test_folder_without_models_is_refused(tmp_path):
    result = run("models", "--model", str(tmp_path))
    assert result.exit_code == 1
    assert "is not a bundle" in result.stderr


def test_quiet_tells_nothing_but_failures(picture):
    result = run("encode", str(picture), "-q", "--target-bytes", "1")
    assert (result.exit_code, result.output) == (0, "")
    result = run("encode", str(picture), "--quiet")
    assert result.exit_code == 1
    assert "exists; use --overwrite" in result.stderr
