"""The worker of the service: batches, and what is wrong with some of their bodies."""

from functools import partial
from io import BytesIO

import numpy as np
import pytest
from helpers.serve import LIMITS, png
from PIL import Image

import dlf
from dlf.runtime.serve.worker import Failed, Order, Worker


@pytest.fixture(scope="module")
def worker(toy_bundle):
    return Worker(partial(dlf.Codec, toy_bundle, "openvino", 1, limits=LIMITS, device="cpu"), LIMITS)


def test_it_says_what_it_is(worker):
    about = worker.start()
    assert (about["model"], about["backend"]) == ("toy", "openvino") and about["limits"]["max_side"] == LIMITS.max_side


def test_a_codec_that_cannot_be_opened(tmp_path):
    with pytest.raises(dlf.BundleForeignError):
        Worker(partial(dlf.Codec, tmp_path), LIMITS).start()


def test_a_batch_both_ways_with_bodies_that_are_wrong(worker):
    images = [png(20, 30, 1), b"?", png(300, 30, 2)]
    coded, seconds = worker.run(Order("encode"), images)
    assert coded[1] == Failed("ImageError", "image: not an image, or of a format that Pillow does not read.", True)
    assert {"read", "analysis", "detail"} <= set(seconds)
    files = [coded[0], b"\xdf", coded[2]]
    decoded, seconds = worker.run(Order("decode"), files)
    assert decoded[1].name == "TruncatedError" and decoded[1].by_request
    assert {"write", "generator"} <= set(seconds)
    for found, file in ((decoded[0], coded[0]), (decoded[2], coded[2])):
        with Image.open(BytesIO(found)) as picture, worker._open() as codec:
            assert np.abs(np.asarray(picture).astype(int) - codec.decode(file)).max() <= 1


def test_faults_that_are_not_the_bodys(toy_bundle):
    class Faulty(dlf.Codec):
        def encode(self, image):
            raise RuntimeError("a mistake")

    worker = Worker(partial(Faulty, toy_bundle, "openvino", 1, device="cpu"), LIMITS)
    (found,), _ = worker.run(Order("encode"), [png(1, 1)])
    assert found == Failed("RuntimeError", "a mistake", by_request=False)
