"""C and Python write the same files and decode each other's files to the same pixels, on the same backend."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.bundle import LoneStage, make_toy_bundle, seal
from helpers.entropy import with_token_frequencies
from helpers.levels import Weights, add_levels, listed, steps
from helpers.native import LIB, Backend, Context, Model, logged, openvino_library
from numpy.typing import NDArray
from PIL import Image

import dlf
from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime import errors, libdlf
from dlf.runtime.backends import Arrays
from dlf.runtime.backends.choice import open_backend
from dlf.runtime.bundles import builtin

SIZES = [(1, 1), (1, 300), (300, 1), (256, 256), (257, 255), (300, 520)]


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth colours with some noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(rows / 50), np.cos(columns / 70), np.sin((rows + columns) / 90)], axis=-1)
    noise = np.random.default_rng(height * width).normal(0, 10, (height, width, 3))
    return np.clip(128 + 90 * waves + noise, 0, 255).astype(np.uint8)


def native_codec(bundle: Path, backend: str = "openvino", **options: object) -> Context:
    """A context on one thread; OpenVINO is the library's own, any other backend is Python's behind the function table."""
    if backend == "openvino":
        pytest.importorskip("openvino")
        return Context(Model(bundle, threads=1, openvino=str(openvino_library()).encode(), **options))
    python = open_backend(backend, 1)
    own = Backend(lambda name, file: python.load(LoneStage(file), name))
    context = Context(Model(bundle, backend=own.pointer(), **options))
    context.own = own  # type: ignore[attr-defined]  # lives as long
    return context


def assert_same(native: Context, python: dlf.Codec, image: NDArray[np.uint8]) -> None:
    data = native.encode(image)
    assert data == python.encode(image)
    np.testing.assert_array_equal(native.decode(data), python.decode(data))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_toy_bundle(toy_bundle, codec, height, width):
    assert_same(native_codec(toy_bundle, codec.backend.name), codec, photograph(height, width))


def test_preview(toy_bundle, codec):
    native = native_codec(toy_bundle, codec.backend.name)
    preview = Context(native.model, preview=1)
    data = codec.encode(photograph(300, 520))
    tokens_end = dlf.info(data).bytes.header + dlf.info(data).bytes.tokens
    for end in (tokens_end, len(data)):
        np.testing.assert_array_equal(preview.decode(data[:end]), codec.decode(data, detail=False))
    with pytest.raises(dlf.TokensMissingError):
        preview.decode(data[: tokens_end - 1])
    with pytest.raises(dlf.ChecksumError):
        native.decode(data[: tokens_end + 5])
    assert preview.encode(photograph(20, 30)) == native.encode(photograph(20, 30))


def test_coded_tokens(toy_bundle, backend, tmp_path):
    """Of a model with frequencies of tokens, whose files are of version 3."""
    folder = shutil.copytree(toy_bundle, tmp_path / "coded")
    tables = EntropyTables.from_bytes((folder / "entropy.bin").read_bytes())
    (folder / "entropy.bin").write_bytes(with_token_frequencies(tables, np.random.default_rng(0)).to_bytes())
    seal(folder)
    with dlf.Codec(folder, backend, threads=1) as python, dlf.Codec(toy_bundle, backend, threads=1) as packed:
        native = native_codec(folder, backend)
        preview = Context(native.model, preview=1)
        for height, width in SIZES:
            assert_same(native, python, photograph(height, width))
            data = native.encode(photograph(height, width))
            assert len(data) <= LIB.dlf_encode_bound(native.model.handle, width, height)
            np.testing.assert_array_equal(preview.decode(data[:-5]), python.decode(data, detail=False))
        start = dlf.info(data).bytes.header
        for end, refusal in ((start + 3, dlf.TokensMissingError), (start + 4, dlf.TruncatedError)):
            with pytest.raises(refusal, match="incomplete"):
                preview.decode(data[:end])
        with pytest.raises(dlf.WrongModelError):
            native.decode(packed.encode(photograph(20, 30)))


@pytest.fixture
def levels_bundle(tmp_path: Path) -> Path:
    """A toy bundle whose generator has levels, which compute another picture than its whole graph."""
    if libdlf.library().dlf_levels_isa() is None:
        pytest.skip("libdlf has no kernels of levels for this processor")
    folder, weights = make_toy_bundle(tmp_path / "levels"), Weights()
    add_levels(folder, listed(steps(0), weights), weights)
    return folder


@pytest.mark.parametrize("low_memory", [False, True])
def test_generator_with_levels(levels_bundle, backend, low_memory):
    with dlf.Codec(levels_bundle, backend, threads=1, low_memory=low_memory) as python:
        native = native_codec(levels_bundle, backend, low_memory=low_memory)
        for height, width in [(1, 1), (300, 700)]:
            assert_same(native, python, photograph(height, width))


def test_whole_generator_of_a_backend_that_asks_for_it(levels_bundle, toy_bundle):
    python = open_backend("onnxruntime", 1)
    image, pictures, loaded = photograph(40, 50), [], []
    for whole in (False, True):
        own = Backend(lambda name, file: python.load(LoneStage(file), name), whole_generator=whole)
        native = Context(Model(levels_bundle, backend=own.pointer()))
        pictures.append(native.decode(native.encode(image)))
        loaded.append(own.names[-1])
        native.close()
    assert loaded == ["generator_base", "generator"]
    with dlf.Codec(toy_bundle, "onnxruntime", threads=1) as codec:  # the same, except the levels
        np.testing.assert_array_equal(pictures[1], codec.decode(codec.encode(image)))
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() > 100


def test_base_of_another_shape_is_refused(levels_bundle):
    python = open_backend("onnxruntime", 1)

    def load(name: str, file: Path) -> Callable[[Arrays], Arrays]:
        stage = python.load(LoneStage(file), name)
        return (lambda inputs: {"base": stage(inputs)["base"][:, :32]}) if name == "generator_base" else stage

    own = Backend(load)
    native = Context(Model(levels_bundle, backend=own.pointer()))
    data = native.encode(photograph(40, 50))
    with pytest.raises(errors.BundleBrokenError, match=r"generator_base gives \(1, 32, 16, 16\) as base, not \(1, 96, 16, 16\)"):
        native.decode(data)


def test_model_of_the_released_layout(tiny_bundle, backend):
    with dlf.Codec(tiny_bundle, backend, threads=1) as python:
        native = native_codec(tiny_bundle, backend)
        for height, width in [(1, 1), (100, 300)]:
            assert_same(native, python, photograph(height, width))


def test_built_in_model():
    native = native_codec(builtin.path())
    assert_same(native, dlf.Codec(backend="openvino", threads=1), photograph(260, 250))


@pytest.mark.slow
def test_built_in_model_on_kodak():
    folder = Path(os.environ.get("DLF_DATA", Path(__file__).parents[4] / "shared" / "data"), "kodak")
    if not folder.is_dir():
        pytest.skip("the Kodak images are not at hand; DLF_DATA may name a folder that holds kodak/")
    files = sorted(folder.glob("*.png"))
    assert len(files) == 24
    native, python = native_codec(builtin.path()), dlf.Codec(backend="openvino", threads=1)
    for file in files:
        assert_same(native, python, np.asarray(Image.open(file).convert("RGB")))


def test_gray_is_three_equal_channels(toy_bundle, codec):
    gray = photograph(40, 300)[:, :, 0].copy()
    native = native_codec(toy_bundle, codec.backend.name)
    assert native.encode(gray) == native.encode(np.repeat(gray[:, :, None], 3, axis=2)) == codec.encode(gray)


def test_rows_may_be_apart(toy_bundle, codec):
    image = photograph(40, 50)
    wide = np.zeros((40, 70, 3), np.uint8)
    wide[:, :50] = image
    assert native_codec(toy_bundle, codec.backend.name).encode(wide[:, :50]) == codec.encode(image)


def test_checksum_may_be_left_out(toy_bundle, codec):
    image = photograph(40, 50)
    native = native_codec(toy_bundle, codec.backend.name)
    bare = native.encode(image, checksum=False)
    assert bare == dlf.Codec(toy_bundle, codec.backend.name, checksum=False).encode(image)
    np.testing.assert_array_equal(native.decode(bare), native.decode(native.encode(image)))


def test_low_memory_changes_nothing_in_the_picture(toy_bundle, codec):
    lean = native_codec(toy_bundle, codec.backend.name, low_memory=1)
    for _ in range(2):
        assert_same(lean, codec, photograph(100, 100))


def test_contexts_of_one_model_run_at_the_same_time(toy_bundle, codec):
    pytest.importorskip("openvino")
    model = Model(toy_bundle, threads=1, openvino=str(openvino_library()).encode())
    images = [photograph(60 * k, 50 * k) for k in range(1, 9)]
    due = [codec.encode(image) for image in images] if codec.backend.name == "openvino" else None
    found: dict[int, bool] = {}

    def work(number: int) -> None:
        context = Context(model)
        data = [context.encode(image) for image in images]
        found[number] = due in (None, data) and all(context.decode(d).shape == i.shape for d, i in zip(data, images, strict=True))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(4), True)


def test_the_log_tells_model_backend_and_steps(toy_bundle):
    pytest.importorskip("openvino")
    import openvino

    with logged() as lines:
        context = native_codec(toy_bundle)
        context.decode(context.encode(photograph(10, 10)))
    levels, texts = zip(*lines, strict=True)
    assert texts[0].startswith("Model toy (")
    assert "licence: unknown" in texts[0]
    for fact in ("openvino", "fp32", openvino.get_version()):
        assert fact in texts[0]
    assert levels == (1, *[2] * (len(lines) - 1))
    loading = [text for text in texts if text.startswith("loading")]
    assert loading == [
        f"loading {stage}" for stage in ("analysis (1 of 1)", "synthesis (1 of 3)", "adaptor (2 of 3)", "generator (3 of 3)")
    ]
    steps = [text.split(":")[0] for text in texts[1:] if not text.startswith("load")]
    assert steps == ["image", "analysis", "vq", "detail", "tokens", "vq", "detail", "synthesis", "adaptor", "generator", "image"]


def test_info_is_what_python_tells(toy_bundle, codec):
    pytest.importorskip("openvino")
    info = Model(toy_bundle, openvino=str(openvino_library()).encode()).info()
    assert info["name"].decode() == codec.bundle.name
    assert f"{info['fingerprint']:04x}" == codec.bundle.fingerprint
    if codec.backend.name == "openvino":
        told = [info[name].decode() for name in ("precision", "backend", "backend_device", "backend_version")]
        assert told == ["fp32", "openvino", codec.backend.device, codec.backend.versions["openvino"]]
