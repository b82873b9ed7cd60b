"""`encode_many` with several processes: the files of one, in order; what is refused; a process that ends."""

import os
import signal

import numpy as np
import pytest

import dlf


@pytest.fixture(scope="module")
def codec(toy_bundle):
    pytest.importorskip("openvino")
    with dlf.Codec(toy_bundle, "openvino", 2, device="cpu") as codec:
        yield codec


def test_the_files_are_those_of_one_process(codec, toy_bundle, tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (height, 40, 3), np.uint8) for height in (30, 300, 50, 300, 20, 256, 10)]
    alone = dlf.Codec(toy_bundle, "openvino", 1, device="cpu")
    assert codec.encode_many(iter(pictures), batch=2, workers=2) == alone.encode_many(pictures, batch=2)
    processes = set(codec._processes._pool._processes)
    assert codec.encode_many([], workers=2) == []
    with pytest.raises(dlf.ImageError, match=r"^item 2: .*missing.png") as raised:
        codec.encode_many([pictures[0], pictures[1], tmp_path / "missing.png"], batch=1, workers=2)
    assert raised.value.index == 2
    assert codec.encode_many(pictures[:1], workers=2) == alone.encode_many(pictures[:1])
    assert set(codec._processes._pool._processes) == processes  # they stayed


def test_a_process_that_ends(codec):
    picture = np.zeros((20, 20, 3), np.uint8)
    codec.encode_many([picture], workers=2)
    for process in codec._processes._pool._processes:
        os.kill(process, signal.SIGKILL)
    with pytest.raises(dlf.BackendFailedError, match="has ended"):
        codec.encode_many([picture] * 20, batch=1, workers=2)
    assert len(codec.encode_many([picture], workers=2)) == 1


def test_no_workers_are_refused(codec):
    with pytest.raises(dlf.InvalidArgumentError, match="workers is 0"):
        codec.encode_many([], workers=0)
