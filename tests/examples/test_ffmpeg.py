"""FFmpeg before and behind `dlf` in a pipe, as docs/programs.md shows it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.c import tool
from PIL import Image

import dlf

QUIET = ("-hide_banner", "-loglevel", "error", "-nostdin")
PATTERN = "testsrc2=size=300x200:rate=1"


def pipe(first: list[str], second: list[str], cwd: Path) -> bytes:
    """What `first | second` writes; both must succeed."""
    with subprocess.Popen(first, stdout=subprocess.PIPE, cwd=cwd) as one:
        two = subprocess.run(second, stdin=one.stdout, capture_output=True, cwd=cwd)
    assert (one.returncode, two.returncode) == (0, 0), two.stderr.decode()
    return two.stdout


@pytest.fixture
def ffmpeg() -> list[str]:
    return [tool("ffmpeg", "ffmpeg"), *QUIET]


def command(*arguments: str, model: Path) -> list[str]:
    return [sys.executable, "-c", "from dlf.runtime.cli import main; main()", *arguments, "--model", str(model)]


@pytest.mark.parametrize("codec", ["png", "mjpeg", "ppm", "bmp"])
def test_a_frame_of_ffmpeg_is_encoded(ffmpeg, toy_bundle, tmp_path, codec):
    frame = [*ffmpeg, "-f", "lavfi", "-i", PATTERN, "-frames:v", "1", "-f", "image2pipe", "-c:v", codec, "-"]
    written = pipe(frame, command("encode", "-", model=toy_bundle), tmp_path)
    picture = subprocess.run(frame, capture_output=True, check=True).stdout
    (tmp_path / "frame").write_bytes(picture)
    with dlf.Codec(toy_bundle) as own:
        assert written == own.encode(tmp_path / "frame")


def test_ffmpeg_reads_what_is_decoded(ffmpeg, toy_bundle, tmp_path):
    with dlf.Codec(toy_bundle) as codec:
        data = codec.encode(np.full((200, 300, 3), (200, 90, 30), np.uint8))
        expected = codec.decode(data)
    (tmp_path / "a.dlf").write_bytes(data)
    reading = [*ffmpeg, "-f", "image2pipe", "-c:v", "png", "-i", "-", "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
    (tmp_path / "a.ppm").write_bytes(pipe(command("decode", "a.dlf", "-o", "-", model=toy_bundle), reading, tmp_path))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.ppm")), expected)
