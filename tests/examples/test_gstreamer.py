"""The GStreamer elements: pictures through gst-launch-1.0, compared with Python."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.c import EXAMPLES, WARNINGS, config, output, picture, pkg_config, tool
from PIL import Image

import dlf

Launch = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory, toy_bundle: Path) -> Launch:
    """gst-launch-1.0 with our plugin and the toy bundle."""
    pytest.importorskip("openvino")
    program = tool("gst-launch-1.0", "gstreamer1.0-tools")
    inspect = tool("gst-inspect-1.0", "gstreamer1.0-tools")
    for element in ("pngdec", "videoconvert"):
        if subprocess.run([inspect, "--exists", element]).returncode:
            pytest.skip(f"GStreamer has no {element} (Debian: gstreamer1.0-plugins-good, gstreamer1.0-plugins-base)")
    folder = tmp_path_factory.mktemp("gstreamer")
    sources = sorted(map(str, (EXAMPLES / "gstreamer").glob("*.c")))
    flags = [*pkg_config("gstreamer-video-1.0"), *config("--cflags", "--libs")]
    output(tool("cc", "gcc"), *WARNINGS, "-shared", "-fPIC", *sources, *flags, "-o", str(folder / "libgstdlf.so"))
    (openvino,) = config("--openvino")
    environment = {
        "GST_PLUGIN_PATH": str(folder),
        "GST_REGISTRY": str(folder / "registry"),
        "DLF_MODEL": str(toy_bundle),
        "DLF_OPENVINO": openvino,
    }

    def run(pipeline: str, **more: str) -> "subprocess.CompletedProcess[str]":
        command = [program, "-q", *pipeline.split()]
        return subprocess.run(command, env=os.environ | environment | more, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture(scope="module")
def codec(toy_bundle: Path) -> Iterator[dlf.Codec]:
    pytest.importorskip("openvino")
    with dlf.Codec(toy_bundle, "openvino") as codec:
        yield codec


@pytest.mark.parametrize("size", [(256, 256), (37, 301), (300, 517)])
def test_png_to_dlf_and_back(size, launch, codec, tmp_path):
    png, file, back = (tmp_path / name for name in ("x.png", "x.dlf", "y.png"))
    image = picture(*size)
    Image.fromarray(image).save(png)
    encoding = launch(f"filesrc location={png} ! pngdec ! videoconvert ! dlfenc ! filesink location={file}")
    assert encoding.returncode == 0, encoding.stderr
    assert file.read_bytes() == codec.encode(image)
    decoding = launch(f"filesrc location={file} blocksize=100 ! dlfdec ! videoconvert ! pngenc ! filesink location={back}")
    assert decoding.returncode == 0, decoding.stderr
    np.testing.assert_array_equal(np.array(Image.open(back)), codec.decode(file.read_bytes()))


def test_video_in_gray(launch, codec, tmp_path):
    source = "videotestsrc num-buffers=3 ! video/x-raw,width=61,height=35,format=GRAY8"
    run = launch(
        f"{source} ! tee name=t ! queue ! pngenc ! multifilesink location={tmp_path}/in%d.png "
        f"t. ! queue ! dlfenc ! dlfdec ! videoconvert ! pngenc ! multifilesink location={tmp_path}/out%d.png"
    )
    assert run.returncode == 0, run.stderr
    for frame in range(3):
        before, after = (np.array(Image.open(tmp_path / f"{name}{frame}.png")) for name in ("in", "out"))
        np.testing.assert_array_equal(after, codec.decode(codec.encode(before)))


def test_refusals_are_errors_of_the_pipeline(launch, codec, tmp_path):
    file = tmp_path / "x.dlf"
    file.write_bytes(codec.encode(picture(30, 30))[:-1])
    # Without async=false gst-launch 1.22 may wait forever for a pipeline that fails while it prerolls (jpegdec's as well).
    decoding = launch(f"filesrc location={file} ! dlfdec ! fakesink async=false")
    assert decoding.returncode == 1
    assert "checksum" in decoding.stderr
    no_model = launch(f"filesrc location={file} ! dlfdec bundle={tmp_path} ! fakesink async=false")
    assert no_model.returncode != 0
    assert str(tmp_path) in no_model.stderr
