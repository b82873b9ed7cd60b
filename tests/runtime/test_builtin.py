"""The model in the package: found without being told, small, and good enough to recognise a photograph."""

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

import dlf
from dlf.runtime import builtin

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
    """Nearer to the original than its best approximation by flat 32x32 blocks."""
    image = load_sample_image(name)
    with dlf.Codec(backend=backend) as codec:
        data = codec.encode(image)
        decoded = codec.decode(data)
    assert dlf.info(data).bpp < 0.1
    height, width = (side // 32 * 32 for side in image.shape[:2])
    cropped = image[:height, :width].astype(float)
    blocks = cropped.reshape(height // 32, 32, width // 32, 32, 3).mean((1, 3)).repeat(32, 0).repeat(32, 1)
    error = np.square(decoded[:height, :width] - cropped).mean()
    assert error < 0.9 * np.square(blocks - cropped).mean()
