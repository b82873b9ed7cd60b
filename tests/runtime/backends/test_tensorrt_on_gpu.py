"""Whole files through real engines, in TensorRT or TensorRT-RTX, beside ONNX Runtime on the CPU."""

import numpy as np
import pytest
from helpers import gpu as helpers_gpu
from helpers.libraries import needs_tensorrt

import dlf

pytestmark = [*helpers_gpu.ON_GPU, needs_tensorrt]


@pytest.fixture(scope="module")
def codecs(tiny_bundle, tmp_path_factory):
    """The tiny model with ONNX Runtime, and on the GPU, with engines built now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield dlf.Codec(tiny_bundle, "onnxruntime", threads=1), dlf.Codec(tiny_bundle, "tensorrt")


def photograph(height: int, width: int) -> np.ndarray:
    rows, cols = np.mgrid[:height, :width]
    waves = [np.sin(rows / 31 + cols / 17 + k) + np.sin(rows / 7 - cols / 13 + k) for k in range(3)]
    return (np.stack(waves, axis=-1) * 60 + 128).astype(np.uint8)


@pytest.mark.parametrize("size", [(256, 256), (300, 520), (1, 1)])
def test_a_file_of_either_decodes_on_the_other_to_the_same_picture(codecs, size):
    for writer in codecs:
        data = writer.encode(photograph(*size))
        here, there = (codec.decode(data).astype(int) for codec in codecs)
        assert np.abs(here - there).max() <= 2


def test_batches_give_what_each_alone_gives(codecs):
    pictures = [photograph(*size) for size in [(100, 300), (256, 257), (40, 512)]]
    files = codecs[1].encode_many(pictures)
    for got, data in zip(codecs[1].decode_many(files), files, strict=True):
        assert np.abs(got.astype(int) - codecs[0].decode(data)).max() <= 2


def test_repeats_and_changes_of_shape(codecs):
    """Through graphs: recorded, replayed, recorded again."""
    for size in [(256, 256)] * 4 + [(256, 512)] * 3 + [(256, 256)] * 3:
        data = codecs[0].encode(photograph(*size))
        difference = codecs[1].decode(data).astype(int) - codecs[0].decode(data)
        assert np.abs(difference).max() <= 2


def test_pictures_of_torch_go_in_and_come_out(codecs):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA")
    picture = photograph(200, 300)
    with torch.cuda.stream(torch.cuda.Stream()):
        data = codecs[1].encode(torch.from_numpy(picture).cuda())
        assert data == codecs[1].encode(picture)
        taken = torch.from_dlpack(codecs[1].decode(data, on_device=True))
        assert taken.is_cuda
        np.testing.assert_array_equal(taken.cpu().numpy(), codecs[1].decode(data))
