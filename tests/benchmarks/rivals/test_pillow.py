from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from dlf.benchmarks import rivals
from dlf.benchmarks.rivals import pillow
from dlf.runtime.errors import InvalidArgumentError


def photograph() -> np.ndarray:
    """A colour picture that codecs can compress: smooth structures of many sizes."""
    rng = np.random.default_rng(0)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((192, 160), Image.Resampling.BICUBIC), float)
        for n in (2, 5, 16, 60)
    ]
    return np.clip(sum(weight * layer for weight, layer in zip((0.5, 0.3, 0.15, 0.05), layers, strict=True)), 0, 255).astype(
        np.uint8
    )


@pytest.mark.parametrize("name", pillow.RIVALS)
def test_a_rival_comes_near_the_size_and_reads_its_own_files(name):
    rival = pillow.find(name)
    pixels = photograph()
    coded = rivals.encode(rival, pixels, 3000)
    assert not coded.at_minimum
    assert abs(len(coded.data) - 3000) < 600
    decoded = rival.decode(coded.data)
    assert decoded.shape == pixels.shape
    assert np.abs(decoded.astype(float) - pixels).mean() < 12
    assert Image.open(BytesIO(coded.data)).format == name.upper()


@pytest.mark.parametrize("name", pillow.RIVALS)
def test_a_rival_that_cannot_be_as_small_is_marked(name):
    coded = rivals.encode(pillow.find(name), photograph(), 20)
    assert (coded.at_minimum, coded.quality) == (True, 0)
    assert len(coded.data) > 20


def test_an_unknown_rival_is_refused():
    with pytest.raises(InvalidArgumentError, match="choose from avif, webp, jxl, jpeg"):
        pillow.find("gif")


def test_a_missing_plug_in_says_what_to_install(monkeypatch):
    monkeypatch.setattr(pillow, "find_spec", lambda name: None)
    with pytest.raises(InvalidArgumentError, match="pip install pillow-jxl-plugin"):
        pillow.find("jxl")
    monkeypatch.setattr(pillow.features, "check", lambda name: False)
    with pytest.raises(InvalidArgumentError, match="This Pillow writes no avif"):
        pillow.find("avif")
