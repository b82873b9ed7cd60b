import numpy as np
import pytest
import torch
from helpers.export import TINY, golden, tiny_model
from PIL import Image
from safetensors.torch import save_file

from dlf.benchmarks.torch_codec import Coded, TorchCodec
from dlf.export.checkpoint import GROUPS_KEY


@pytest.fixture(scope="module")
def golden_tensors():
    return golden("mini7_512x256")


def test_codes_what_the_golden_tensors_hold(golden_tensors, mini_checkpoint, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(golden_tensors["image"]).save(path)
    codec = TorchCodec(mini_checkpoint, threads=1)
    (coded,) = codec.encode([path])
    assert np.array_equal(coded.tokens.numpy().ravel(), golden_tensors["indices"].ravel())
    assert b"\x01" + coded.detail == golden_tensors["detail_stream"].tobytes()
    coded.save(tmp_path / "coded")
    again = Coded.load(tmp_path / "coded")
    assert (again.height, again.width, again.detail) == (coded.height, coded.width, coded.detail)
    assert torch.equal(again.y_hat, coded.y_hat)
    (decoded,) = codec.decode([again])
    assert (np.abs(decoded.astype(int) - golden_tensors["image_hat"]) <= 1).mean() > 0.999


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no NVIDIA GPU")
def test_a_gpu_gives_what_the_cpu_gives(golden_tensors, mini_checkpoint, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(golden_tensors["image"]).save(path)
    codec = TorchCodec(mini_checkpoint, threads=1, device="cuda")
    (coded,) = codec.encode([path])
    assert (coded.tokens.numpy().ravel() == golden_tensors["indices"].ravel()).mean() > 0.99
    (decoded,) = codec.decode([coded])
    assert np.abs(decoded.astype(int) - golden_tensors["image_hat"]).mean() <= 1


def test_a_batch_gives_what_each_image_alone_gives(tmp_path):
    checkpoint = tmp_path / "tiny.safetensors"
    save_file(tiny_model().state_dict(), checkpoint, {GROUPS_KEY: str(TINY.vqgan_groups)})
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for i, path in enumerate(paths):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 200 + i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    codec = TorchCodec(checkpoint, threads=1)
    coded = codec.encode(paths)
    for path, one, decoded in zip(paths, coded, codec.decode(coded), strict=True):
        (alone,) = codec.encode([path])
        assert torch.equal(one.tokens, alone.tokens) and one.y_hat.shape == alone.y_hat.shape
        assert abs(len(one.detail) - len(alone.detail)) <= 4  # a symbol may round the other way
        assert (decoded.shape[0], decoded.shape[1]) == (one.height, one.width)
        one.save(tmp_path / "one")
        alone.save(tmp_path / "alone")
        assert abs((tmp_path / "one").stat().st_size - (tmp_path / "alone").stat().st_size) <= 256
        assert np.abs(codec.decode([Coded.load(tmp_path / "one")])[0].astype(int) - decoded).max() <= 1
