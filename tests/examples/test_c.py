"""The examples in C write the same files as Python, and decode the same pixels with the same backend."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.bundle import make_toy_bundle
from helpers.c import SIZES, build_example, config, picture, pkg_config, ppm
from PIL import Image

import dlf


@pytest.fixture(autouse=True)
def openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("DLF_OPENVINO", *config("--openvino"))


@pytest.fixture(scope="module")
def codec(toy_bundle: Path) -> Iterator[dlf.Codec]:
    pytest.importorskip("openvino")
    with dlf.Codec(toy_bundle, "openvino") as codec:
        yield codec


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    for name in ("dlf_transcode", "dlf_to_ppm", "dlf_batch"):
        build_example(folder, name, config("--cflags", "--libs"))
    return folder


def run(*command: object, stdin: bytes = b"") -> bytes:
    done = subprocess.run([str(part) for part in command], input=stdin, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def refusal(*command: object, stdin: bytes = b"") -> str:
    done = subprocess.run([str(part) for part in command], input=stdin, capture_output=True)
    assert done.returncode == 1
    return done.stderr.decode()


@pytest.mark.parametrize("build", ["config", "pkg-config", "C++"])
def test_transcode(build, tmp_path, toy_bundle, codec):
    flags = pkg_config("dlf") if build == "pkg-config" else config("--cflags", "--libs")
    compiler = ("c++", "-x", "c++", "-std=c++17") if build == "C++" else ("cc", "-std=c11")
    transcode = build_example(tmp_path, "dlf_transcode", flags, compiler=compiler)
    png, file, back = (tmp_path / name for name in ("a.png", "a.dlf", "b.png"))
    for size in SIZES:
        image = picture(*size)
        Image.fromarray(image).save(png)
        run(transcode, toy_bundle, png, file)
        run(transcode, toy_bundle, file, back)
        assert file.read_bytes() == codec.encode(image)
        np.testing.assert_array_equal(np.array(Image.open(back)), codec.decode(file.read_bytes()))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_transcode_takes_any_png(mode, tmp_path, programs, toy_bundle, codec):
    png, file = tmp_path / "a.png", tmp_path / "a.dlf"
    Image.fromarray(picture(40, 50)).convert(mode).save(png)
    run(programs / "dlf_transcode", toy_bundle, png, file)
    assert file.read_bytes() == codec.encode(png)


def test_decoding_from_a_pipe(programs, toy_bundle, codec):
    for size in SIZES:
        file = codec.encode(picture(*size))
        assert run(programs / "dlf_to_ppm", toy_bundle, stdin=file) == ppm(codec.decode(file))


def test_batch_on_eight_threads(tmp_path, programs, toy_bundle, codec):
    images = {f"{height}x{width}": picture(height, width) for height in (5, 256, 257) for width in range(10, 310, 40)}
    for name, image in images.items():
        (tmp_path / f"{name}.ppm").write_bytes(ppm(image))
    run(programs / "dlf_batch", toy_bundle, *(tmp_path / f"{name}.ppm" for name in images))
    run(programs / "dlf_batch", toy_bundle, *(tmp_path / f"{name}.dlf" for name in images))
    for name, image in images.items():
        file = (tmp_path / f"{name}.dlf").read_bytes()
        assert file == codec.encode(image)
        assert (tmp_path / f"{name}.ppm").read_bytes() == ppm(codec.decode(file))


def test_refusals_tell_their_reason(tmp_path, programs, toy_bundle, codec):
    transcode, to_ppm, batch = (programs / name for name in ("dlf_transcode", "dlf_to_ppm", "dlf_batch"))
    file, png = tmp_path / "a.dlf", tmp_path / "a.png"
    data = codec.encode(picture(30, 30))
    file.write_bytes(data)
    assert "No such file" in refusal(transcode, toy_bundle, tmp_path / "none.png", file)
    assert "PNG" in refusal(transcode, toy_bundle, file, tmp_path / "b.dlf")
    assert "No such file" in refusal(transcode, toy_bundle, file, tmp_path / "none" / "b.png")
    assert str(tmp_path) in refusal(transcode, tmp_path, file, png)
    assert codec.bundle.fingerprint in refusal(transcode, make_toy_bundle(tmp_path / "other", seed=1), file, png)
    assert "checksum" in refusal(to_ppm, toy_bundle, stdin=data[:-1])
    assert "not a .dlf file" in refusal(to_ppm, toy_bundle, stdin=b"hello, world")
    assert "neither .ppm nor .dlf" in refusal(batch, toy_bundle, png, file)
    assert (tmp_path / "a.ppm").read_bytes() == ppm(codec.decode(data))  # the others are done all the same
    assert not png.exists()
