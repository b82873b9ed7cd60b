"""The kernels of pictures against `dlf.runtime.images`, which says what they compute, bit by bit."""

import numpy as np
import pytest
from helpers import kernels as helpers_kernels

from dlf.kernels.launches import PictureSizes
from dlf.runtime import images


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
@pytest.mark.parametrize(("height", "width"), [(256, 256), (1, 1), (40, 300)])
def test_pad_pixels(device, height, width):
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    want = images.pad_to_tiles(pixels)[0]
    _, got = helpers_kernels.run(
        device,
        helpers_kernels.call,
        "launch_pad_pixels",
        pixels,
        np.full_like(want, 7),
        sizes=PictureSizes(height, width, *want.shape[1:]),
    )
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
@pytest.mark.parametrize(("height", "width"), [(256, 256), (1, 1), (40, 200)])
def test_crop_pixels(device, height, width):
    image = np.random.default_rng(width).normal(0, 0.8, (3, 256, 256)).astype(np.float32)
    levels = np.arange(256, dtype=np.float32)
    image[:, 0] = levels / 127.5 - 1
    image[:, 1] = (levels + 0.5) / 127.5 - 1  # halves, or next to them
    want = images.crop_to_pixels(image[None], height, width)
    _, got = helpers_kernels.run(
        device,
        helpers_kernels.call,
        "launch_crop_pixels",
        image,
        np.full_like(want, 7),
        sizes=PictureSizes(height, width, 256, 256),
    )
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, np.finfo(np.float32).max, 1e-45])
def test_check_finite(device, value):
    values = np.zeros((2, 1000), np.float32)
    values[1, -1] = value
    flag = np.zeros(1, np.int32)
    _, got = helpers_kernels.run(
        device, helpers_kernels.call, "launch_check_finite", values, flag, images=2, count=values.shape[1]
    )
    assert got.tolist() == [0 if np.isfinite(value) else 1]
