import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers.bundle import make_toy_bundle, seal, toy_picture, toy_tokens
from numpy.typing import NDArray

import dlf
from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime.backends import Arrays, Stage
from dlf.runtime.backends.choice import installed
from dlf.runtime.formats import STAGES

SIZES = [(1, 1), (1, 300), (300, 1), (257, 255), (256, 256), (512, 300)]


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth colours with some noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(rows / 50), np.cos(columns / 70), np.sin((rows + columns) / 90)], axis=-1)
    noise = np.random.default_rng(height * width).normal(0, 10, (height, width, 3))
    return np.clip(128 + 90 * waves + noise, 0, 255).astype(np.uint8)


def padded(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(3, H', W') in -1..1, by explicit indexing."""
    height, width, _ = image.shape
    rows = np.minimum(np.arange(-(-height // 256) * 256), height - 1)
    columns = np.minimum(np.arange(-(-width // 256) * 256), width - 1)
    return (image[rows][:, columns].transpose(2, 0, 1) / 127.5 - 1).astype(np.float32)


@pytest.fixture(scope="module")
def codebook(toy_bundle: Path) -> NDArray[np.float32]:
    return EntropyTables.from_bytes((toy_bundle / "entropy.bin").read_bytes()).codebook


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_round_trip_gives_the_picture_that_numpy_computes(codec, toy_bundle, codebook, height, width):
    image = photograph(height, width)
    decoded = codec.decode(codec.encode(image))
    expected = (toy_picture(toy_bundle, padded(image), codebook)[:height, :width] + 1) * 127.5
    assert decoded.shape == image.shape
    assert decoded.dtype == np.uint8
    assert np.abs(decoded - expected).max() <= 3  # q/2 of y is 2 levels, rounding half a level


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_preview_is_what_numpy_computes_from_the_tokens_alone(codec, toy_bundle, codebook, height, width):
    image = photograph(height, width)
    data = codec.encode(image)
    preview = codec.decode(data, detail=False)
    expected = (toy_picture(toy_bundle, padded(image), codebook, detail=False)[:height, :width] + 1) * 127.5
    assert np.abs(preview - expected).max() <= 0.51  # rounding
    parts = dlf.info(data).bytes
    for end in (parts.header + parts.tokens, parts.total - parts.checksum - 1, parts.total - 1):
        assert np.array_equal(codec.decode(data[:end], detail=False), preview)
    assert np.array_equal(codec.decode_many([data, data[:-3]], detail=False), [preview, preview])


def test_file_that_is_cut_off_behind_its_tokens_is_refused_without_preview(codec):
    data = codec.encode(photograph(256, 256))
    parts = dlf.info(data).bytes
    with pytest.raises(dlf.ChecksumError):
        codec.decode(data[: parts.header + parts.tokens + 5])
    with pytest.raises(dlf.TokensMissingError):
        codec.decode(data[: parts.header + parts.tokens - 1], detail=False)


def test_file_holds_the_tokens_that_numpy_finds(codec, toy_bundle, codebook):
    image = photograph(300, 520)
    data = codec.encode(image)
    found = dlf.info(data)
    tokens = data[found.bytes.header : found.bytes.header + found.bytes.tokens]
    bits = np.unpackbits(np.frombuffer(tokens, np.uint8)).reshape(-1, 32, 6)
    assert np.array_equal(bits @ (1 << np.arange(5, -1, -1)), toy_tokens(toy_bundle, padded(image), codebook))


def test_info_describes_the_file(codec):
    data = codec.encode(photograph(300, 520))
    parts = dlf.info(data).to_dict()["bytes"]
    assert dlf.info(data).to_dict() == {
        "width": 520,
        "height": 300,
        "version": 1,
        "fingerprint": codec.bundle.fingerprint,
        "tiles": 6,
        "bytes": {"total": len(data), "header": 8, "tokens": 6 * 24, "detail": len(data) - 154, "checksum": 2, "metadata": 0},
        "exif": 0,
        "xmp": 0,
        "bpp": pytest.approx(len(data) * 8 / 520 / 300),
        "padding_waste": pytest.approx(1 - 520 * 300 / (512 * 768)),
    }
    assert parts["header"] + parts["tokens"] + parts["detail"] + parts["checksum"] == parts["total"]


def test_without_checksum_the_file_is_two_bytes_shorter(toy_bundle, codec):
    image = photograph(20, 30)
    plain = dlf.Codec(toy_bundle, codec.backend.name, checksum=False)
    assert len(plain.encode(image)) == len(codec.encode(image)) - 2
    assert np.array_equal(codec.decode(plain.encode(image)), codec.decode(codec.encode(image)))


def test_low_memory_changes_nothing_in_the_picture(toy_bundle, codec):
    data = codec.encode(photograph(100, 100))
    lean = dlf.Codec(toy_bundle, codec.backend.name, low_memory=True)
    assert lean.encode(photograph(100, 100)) == data
    assert np.array_equal(lean.decode(data), codec.decode(data))


def loaded(codec: dlf.Codec) -> set[str]:
    return {stage for coder in codec._coders.values() for stage in coder.stages}


def test_stages_are_kept_but_after_a_large_image(toy_bundle, codec):
    small, large = photograph(100, 100), photograph(1024, 1000)
    data = codec.encode(small)
    picture = codec.decode(data)
    assert loaded(codec) == set(STAGES)
    in_parts = codec.decode(codec.encode(large))
    assert loaded(codec) == set()
    with dlf.Codec(toy_bundle, codec.backend.name, threads=1, low_memory=True) as lean:
        assert np.array_equal(in_parts, lean.decode(lean.encode(large)))
    assert codec.encode(small) == data
    assert np.array_equal(codec.decode(data), picture)
    assert loaded(codec) == set(STAGES)


def test_encoding_needs_no_decoder_and_decoding_no_encoder(codec, bundle_copy):
    data = codec.encode(photograph(10, 10))
    for stage in ("synthesis", "adaptor", "generator"):
        (bundle_copy / f"{stage}.onnx").rename(bundle_copy / f"{stage}.away")
    assert dlf.Codec(bundle_copy, codec.backend.name).encode(photograph(10, 10)) == data
    for stage in ("synthesis", "adaptor", "generator"):
        (bundle_copy / f"{stage}.away").rename(bundle_copy / f"{stage}.onnx")
    (bundle_copy / "analysis.onnx").unlink()
    assert np.array_equal(dlf.Codec(bundle_copy, codec.backend.name).decode(data), codec.decode(data))


@pytest.fixture
def stage_runs(codec, monkeypatch) -> list[tuple[str, int]]:
    """(stage, images) of each run; on a batch, a stage then gives exactly what it gives on each image alone."""
    runs: list[tuple[str, int]] = []
    load = codec.backend.load

    def load_spied(bundle: object, name: str) -> Stage:
        stage = load(bundle, name)

        def run(inputs: Arrays) -> Arrays:
            count = len(next(iter(inputs.values())))
            runs.append((name, count))
            alone = [
                {k: np.copy(v) for k, v in stage({k: v[i : i + 1] for k, v in inputs.items()}).items()} for i in range(count)
            ]
            return {name: np.concatenate([arrays[name] for arrays in alone]) for name in alone[0]}

        return run

    monkeypatch.setattr(codec.backend, "load", load_spied)
    return runs


MIXED = [(20, 30), (300, 520), (256, 256), (257, 513), (1, 1), (10, 256)]  # of two padded sizes


def test_many_give_what_each_alone_gives_in_order(codec, stage_runs):
    pictures = [photograph(*size) for size in MIXED]
    files = codec.encode_many((picture for picture in pictures), batch=3)
    assert stage_runs == [("analysis", 3), ("analysis", 2), ("analysis", 1)]
    assert codec.timings.keys() == {"image", "load", "analysis", "vq", "detail"}
    assert files == [codec.encode(picture) for picture in pictures]
    stage_runs.clear()
    decoded = codec.decode_many(files, batch=3)
    assert stage_runs == [(stage, n) for n in (3, 2, 1) for stage in ("synthesis", "adaptor", "generator")]
    assert codec.timings.keys() == {"vq", "detail", "load", "synthesis", "adaptor", "generator", "image"}
    for image, data in zip(decoded, files, strict=True):
        assert np.array_equal(image, codec.decode(data))


def test_batches_of_a_real_model(tiny_bundle, backend):
    with dlf.Codec(tiny_bundle, backend, threads=1) as codec:
        pictures = [photograph(*size) for size in [(100, 300), (256, 257), (40, 512)]]
        files = codec.encode_many(pictures)
        for data, alone in zip(files, map(codec.encode, pictures), strict=True):
            assert abs(len(data) - len(alone)) <= 4  # a symbol may round the other way
        for image, alone in zip(codec.decode_many(files), map(codec.decode, files), strict=True):
            assert image.shape == alone.shape
            assert np.abs(image.astype(int) - alone).max() <= 1


def test_none_of_many(codec):
    assert codec.encode_many([]) == []
    assert codec.decode_many([]) == []


def test_a_bad_one_of_many_is_named_by_its_index(codec, tmp_path):
    good, missing = photograph(10, 10), tmp_path / "missing.png"
    with pytest.raises(dlf.ImageError, match=rf"^item 2: {missing}") as refusal:
        codec.encode_many([good, good, missing, good])
    assert refusal.value.index == 2
    data = codec.encode(good)
    for damaged, kind in ((data[:5], dlf.TruncatedError), (b"GIF89a", dlf.NotDLFError)):
        with pytest.raises(kind, match=r"^item 1: ") as refusal:
            codec.decode_many([data, damaged])
        assert refusal.value.index == 1
    with pytest.raises(dlf.ImageError) as refusal:
        codec.encode(missing)
    assert refusal.value.index is None


def test_a_bad_stream_among_many_is_named_by_its_index(toy_bundle, codec):
    plain = dlf.Codec(toy_bundle, codec.backend.name, checksum=False).encode(photograph(10, 10))
    with pytest.raises(dlf.TrailingBytesError, match=r"^item 1: ") as refusal:
        codec.decode_many([plain, plain + b"x"])
    assert refusal.value.index == 1


def test_headers_of_all_files_are_checked_before_any_is_decoded(codec, stage_runs):
    data = codec.encode(photograph(10, 10))
    stage_runs.clear()
    with pytest.raises(dlf.NotDLFError):
        codec.decode_many([data, data, b"GIF89a"], batch=1)
    assert stage_runs == []


@pytest.mark.parametrize("name", ["encode_many", "decode_many"])
def test_batch_must_be_positive(codec, name):
    with pytest.raises(dlf.InvalidArgumentError, match="batch is 0"):
        getattr(codec, name)([], batch=0)


def test_codec_is_usable_after_close(codec):
    data = codec.encode(photograph(10, 10))
    codec.close()
    assert codec.encode(photograph(10, 10)) == data


def test_codec_refuses_to_be_pickled(codec):
    with pytest.raises(TypeError, match="open one in each process"):
        pickle.dumps(codec)


def test_backend_tells_what_is_in_use(codec, caplog):
    assert codec.backend.precision == "fp32"
    assert codec.backend.device
    assert codec.backend.versions.keys() == {codec.backend.name}
    with caplog.at_level("DEBUG", "dlf"):
        dlf.Codec(codec.bundle.path, codec.backend.name).encode(photograph(10, 10))
    for fact in (codec.backend.name, codec.backend.device, *codec.backend.versions.values(), "fp32", "analysis"):
        assert fact in caplog.text


@pytest.mark.parametrize(("model", "told"), [({"name": "m", "license": "CC0-1.0"}, "CC0-1.0"), ({"name": "m"}, "unknown")])
def test_log_tells_the_models_licence(bundle_copy, caplog, model, told):
    seal(bundle_copy, model=model)
    with caplog.at_level("INFO", "dlf"), dlf.Codec(bundle_copy) as codec:
        assert codec.bundle.license == model.get("license")
    assert f"licence: {told})" in caplog.text


def test_timings_are_those_of_the_last_call(codec):
    data = codec.encode(photograph(10, 10))
    assert codec.timings.keys() == {"image", "load", "analysis", "vq", "detail"}
    codec.decode(data)
    assert codec.timings.keys() == {"vq", "detail", "load", "synthesis", "adaptor", "generator", "image"}
    assert all(seconds >= 0 for seconds in codec.timings.values())


def test_two_models_of_one_layout_are_told_apart(codec, tmp_path):
    other = dlf.Codec(make_toy_bundle(tmp_path / "other", seed=1), codec.backend.name)
    with pytest.raises(dlf.WrongModelError) as refusal:
        other.decode(codec.encode(photograph(10, 10)))
    assert codec.bundle.fingerprint in str(refusal.value)
    assert other.bundle.fingerprint in str(refusal.value)


@pytest.mark.parametrize("limits", [dlf.Limits(max_pixels=99), dlf.Limits(max_side=9)])
def test_limits_hold_for_encoding_and_decoding(codec, limits):
    image = photograph(10, 10)
    strict = dlf.Codec(codec.bundle.path, codec.backend.name, limits=limits)
    with pytest.raises(dlf.SizeLimitError, match="10x10"):
        strict.encode(image)
    with pytest.raises(dlf.SizeLimitError, match="10x10"):
        strict.decode(codec.encode(image))


def test_limits_can_be_raised(codec):
    wide = photograph(1, 16385)
    with pytest.raises(dlf.SizeLimitError):
        codec.encode(wide)
    generous = dlf.Codec(codec.bundle.path, codec.backend.name, limits=dlf.Limits(max_side=20000))
    assert generous.decode(generous.encode(wide)).shape == wide.shape


def test_backends_read_each_others_files_of_a_real_model(tiny_bundle):
    codecs = [dlf.Codec(tiny_bundle, name, threads=1) for name in installed()]
    image = photograph(100, 300)
    for writer in codecs:
        data = writer.encode(image)
        pictures = [reader.decode(data).astype(int) for reader in codecs]
        assert pictures[0].shape == image.shape
        assert pictures[0].std() > 0
        assert all(np.abs(picture - pictures[0]).max() <= 1 for picture in pictures)
