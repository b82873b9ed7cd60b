"""A rival that is a command, on a codec of a few lines: WebP through Pillow, in a process of its own."""

import shlex
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlf.benchmarks import rivals, speed
from dlf.benchmarks.records import DIRECTIONS
from dlf.benchmarks.rivals import command
from dlf.runtime.errors import BackendFailedError, InvalidArgumentError

PYTHON = shlex.quote(sys.executable)
CODEC = """import sys
from PIL import Image
source, target, *quality = sys.argv[1:]
options = {"quality": int(quality[0])} if quality else {}
Image.open(source).save(target, "WEBP" if quality else "PNG", **options)
"""
FIELDS = {
    "name": '"toy"',
    "encode": f"'{PYTHON} codec.py {{image}} {{file}} {{quality}}'",
    "decode": f"'{PYTHON} codec.py {{file}} {{image}}'",
    "qualities": "[10, 40, 90]",
    "suffix": '".toy"',
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "codec.py").write_text(CODEC)
    return folder


def written(folder: Path, **changes: str | None) -> Path:
    """A rival's file, with fields changed or, where None, left out."""
    path = folder / "toy.toml"
    path.write_text("".join(f"{name} = {value}\n" for name, value in (FIELDS | changes).items() if value is not None))
    return path


@pytest.fixture
def pixels():
    return np.linspace(0, 255, 64 * 96 * 3).reshape(64, 96, 3).astype(np.uint8)


def webp(pixels, quality):
    file = BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=quality)
    return file.getvalue()


def test_files_and_pictures_are_those_of_the_command(folder, pixels):
    toy = command.load(written(folder))
    data = toy.encode(pixels, 40)
    assert data == webp(pixels, 40)
    assert np.array_equal(toy.decode(data), np.asarray(Image.open(BytesIO(data)).convert("RGB")))


def test_the_quality_nearest_to_a_size_is_found(folder, pixels):
    toy = command.load(written(folder))
    sizes = {quality: len(webp(pixels, quality)) for quality in toy.qualities}
    assert len(set(sizes.values())) == 3
    assert rivals.encode(toy, pixels, sizes[40] + 1).quality == 40
    smallest = rivals.encode(toy, pixels, 1)
    assert (smallest.quality, smallest.at_minimum) == (10, True)


def test_a_codec_without_qualities_has_one_file(folder, pixels):
    fixed = f"'{PYTHON} codec.py {{image}} {{file}} 30'"
    toy = command.load(written(folder, encode=fixed, qualities=None))
    assert rivals.encode(toy, pixels, 100).data == webp(pixels, 30)


def test_it_is_timed_beside_a_bundle(folder, toy_bundle, pixels):
    image = folder / "image.png"
    Image.fromarray(pixels).save(image)
    toy = command.load(written(folder))
    found = speed.measure(image, toy_bundle, ["onnxruntime"], commands=[toy], checkpoint=None, threads=1, repeats=2)
    theirs = [timing for timing in found.timings if timing.peer == "toy"]
    assert [timing.direction for timing in theirs] == list(DIRECTIONS)
    for ours, timing in zip(found.timings, theirs, strict=False):
        assert len(timing.warm) == 2 and timing.peak_bytes is None
        assert found.ratio(timing) == timing.p50 / ours.cold  # both start a process


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "has no 'name'"),
        ({"decode": None}, "has no 'decode'"),
        ({"quality": "1"}, "'quality' is unknown"),
        ({"timeout": '"long"'}, "timeout = 'long' is of the wrong type"),
        ({"qualities": "[]"}, "qualities must be numbers, one at least"),
        ({"qualities": '["low"]'}, "qualities must be numbers, one at least"),
        ({"encode": "'codec {image}'"}, "encode has no {file}"),
        ({"decode": "'no-such-codec {file} {image}'"}, "program no-such-codec of decode is not installed"),
        ({"decode": "'codec \"{file} {image}'"}, "decode is no command"),
        ({"name": "toy"}, "cannot be read as a rival's TOML"),
    ],
)
def test_a_faulty_file_is_refused(folder, changes, message):
    with pytest.raises(InvalidArgumentError, match=r"toy\.toml") as refused:
        command.load(written(folder, **changes))
    assert message in str(refused.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match="No such file"):
        command.load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('first'); raise SystemExit('out of luck')", r"ended with status 1 \(out of luck\)"),
        ("print('done')", r"wrote no file \(done\)"),
        ("pass", r"wrote no file \(no message\)"),
    ],
)
def test_a_command_that_fails_says_why(folder, pixels, code, message):
    toy = command.load(written(folder))
    (folder / "codec.py").write_text(code)
    with pytest.raises(BackendFailedError, match=message):
        toy.encode(pixels, 10)


def test_a_command_that_hangs_is_ended_with_its_children(folder, pixels):
    toy = command.load(written(folder, timeout="1.5"))
    (folder / "codec.py").write_text(
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(2.5); open(\"late\", \"w\")'])\n"
        "time.sleep(60)"
    )
    with pytest.raises(BackendFailedError, match=r"took longer than 1\.5 s"):
        toy.encode(pixels, 10)
    time.sleep(2)
    assert not (folder / "late").exists()
