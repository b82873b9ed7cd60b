"""The model in the package: found without a path, small, and good enough to recognise a photograph."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

import dlf
from dlf.runtime.bundles import builtin

MAX_BYTES = 16_000_000  # of the bundle in the package


def test_bundle_is_small_and_whole() -> None:
    with dlf.Codec() as codec:
        assert codec.bundle.path == builtin.path()
        for stage in ("analysis", "synthesis", "adaptor", "generator"):
            codec.bundle.stage(stage)  # raises where a file is not what its hash says
        assert f"{codec.bundle.entropy.fingerprint:04x}" == builtin.fingerprint()
    assert sum(file.stat().st_size for file in builtin.path().iterdir()) <= MAX_BYTES


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_photograph_comes_back(name: str, backend: str) -> None:
    """Nearer to the original than its best approximation by flat 32x32 blocks, as far as the means of 8x8 blocks tell.

    Finer than that is texture, which this model paints: there, plain error says little.
    """
    image = load_sample_image(name)
    with dlf.Codec(backend=backend) as codec:
        data = codec.encode(image)
        decoded = codec.decode(data)
    assert dlf.info(data).bpp < 0.1
    height, width = (side // 32 * 32 for side in image.shape[:2])
    original, found = (means(pixels[:height, :width], 8) for pixels in (image, decoded))
    flat = means(image[:height, :width], 32).repeat(4, 0).repeat(4, 1)
    assert np.square(found - original).mean() < 0.5 * np.square(flat - original).mean()


def means(pixels: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    """The mean of each block of so many pixels a side."""
    height, width, _ = pixels.shape
    return pixels.reshape(height // side, side, width // side, side, 3).mean((1, 3))
