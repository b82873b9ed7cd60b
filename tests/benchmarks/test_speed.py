import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.export import TINY, tiny_model
from PIL import Image
from safetensors.torch import save_file

from dlf.benchmarks import speed
from dlf.benchmarks.records import DIRECTIONS
from dlf.benchmarks.speed_worker import Job, run
from dlf.export.checkpoint import GROUPS_KEY
from dlf.runtime.errors import BackendFailedError


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    """A small one (not of the toy bundle's model: that has none)."""
    path = tmp_path / "tiny.safetensors"
    save_file(tiny_model().state_dict(), path, {GROUPS_KEY: str(TINY.vqgan_groups)})
    return path


def test_peers_are_timed_in_both_directions(photo, toy_bundle, checkpoint):
    options = {"checkpoint": checkpoint, "threads": 1, "repeats": 2}
    found = speed.measure(photo, toy_bundle, ["openvino", "torch"], **options, batches=[2])
    measured = [(timing.batch, timing.peer, timing.direction) for timing in found.timings]
    assert measured == [(n, peer, direction) for n in (1, 2) for peer in ("openvino", "torch") for direction in DIRECTIONS]
    for timing in found.timings:
        assert timing.cold > 0 and len(timing.warm) == 2
        assert timing.peer in timing.versions
        for i, seconds in enumerate(timing.warm):  # the steps, with what is left for the files, make up the whole
            assert sum(values[i] for values in timing.steps.values()) == pytest.approx(seconds)
    for ours, peers in zip(found.timings[:2], found.timings[2:4], strict=True):
        assert ours.steps.keys() == peers.steps.keys()
    assert (found.width, found.height, found.baselines) == (300, 200, ["torch"])


@pytest.mark.parametrize("peer", ["onnxruntime", "torch"])
def test_decoding_reads_the_files_that_encoding_wrote(photo, toy_bundle, checkpoint, tmp_path, peer):
    model, suffix = (checkpoint, ".pt") if peer == "torch" else (toy_bundle, ".dlf")
    for direction in DIRECTIONS:
        run(Job(peer, direction, 3, str(photo), str(model), 1, 1, str(tmp_path)), started=0)
    coded = [tmp_path / f"{peer}-{i}{suffix}" for i in range(3)]
    assert len({file.read_bytes() for file in coded if suffix == ".dlf"}) <= 1  # of one image
    pictures = [np.asarray(Image.open(file.with_suffix(".png"))).astype(int) for file in coded]
    assert pictures[0].shape == (200, 300, 3)
    assert all(np.abs(picture - pictures[0]).max() <= 1 for picture in pictures)


def test_the_peak_is_of_this_process_alone(tmp_path):
    code = "from dlf.benchmarks.speed_worker import _peak_bytes; print(_peak_bytes())"
    block = bytearray(os.urandom(1 << 20) * 400)  # that a child's getrusage would count
    small = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    del block
    code = "block = bytearray(1) * (200 << 20); " + code
    large = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 200 << 20 < int(large.stdout) < 400 << 20
    assert int(large.stdout) - int(small.stdout) == pytest.approx(200 << 20, rel=0.1)


def test_a_measurement_that_fails_says_why(photo, tmp_path):
    with pytest.raises(BackendFailedError, match=r"openvino encode ended with status 1 \(.*BundleForeignError"):
        speed.measure(photo, tmp_path, ["openvino"], checkpoint=None, threads=1, repeats=1)
