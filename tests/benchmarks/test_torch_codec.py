import numpy as np
import pytest
import torch
from helpers_export import golden
from PIL import Image

from dlf.benchmarks.torch_codec import Coded, TorchCodec


@pytest.fixture(scope="module")
def golden_tensors():
    return golden("mini7_512x256")


def test_codes_what_the_golden_tensors_hold(golden_tensors, mini_checkpoint, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(golden_tensors["image"]).save(path)
    codec = TorchCodec(mini_checkpoint, threads=1)
    coded = codec.encode(path)
    assert np.array_equal(coded.tokens.numpy().ravel(), golden_tensors["indices"].ravel())
    assert b"\x01" + coded.detail == golden_tensors["detail_stream"].tobytes()
    coded.save(tmp_path / "coded")
    again = Coded.load(tmp_path / "coded")
    assert (again.height, again.width, again.detail) == (coded.height, coded.width, coded.detail)
    assert torch.equal(again.y_hat, coded.y_hat)
    decoded = codec.decode(again)
    assert (np.abs(decoded.astype(int) - golden_tensors["image_hat"]) <= 1).mean() > 0.999
