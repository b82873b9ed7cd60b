from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dlf.benchmarks import rivals
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


@given(st.lists(st.integers(1, 300), min_size=101, max_size=101), st.integers(0, 400))
def test_nearest_is_what_trying_every_quality_finds(sizes, wanted):
    sizes.sort()
    quality, data = rivals.nearest(lambda quality: bytes(sizes[quality]), wanted)
    assert len(data) == sizes[quality]
    assert abs(sizes[quality] - wanted) == min(abs(size - wanted) for size in sizes)


def test_nearest_tries_few_qualities():
    tried = []
    rivals.nearest(lambda quality: tried.append(quality) or bytes(quality + 1), 50)
    assert len(tried) <= 8


@pytest.mark.parametrize("name", rivals.RIVALS)
def test_a_rival_comes_near_the_size_and_reads_its_own_files(name):
    rivals.check(name)
    pixels = photograph()
    coded = rivals.encode(name, pixels, 3000)
    assert not coded.at_minimum
    assert abs(len(coded.data) - 3000) < 600
    decoded = rivals.decode(coded.data)
    assert decoded.shape == pixels.shape
    assert np.abs(decoded.astype(float) - pixels).mean() < 12
    assert Image.open(BytesIO(coded.data)).format == rivals.RIVALS[name].format


@pytest.mark.parametrize("name", rivals.RIVALS)
def test_a_rival_that_cannot_be_as_small_is_marked(name):
    coded = rivals.encode(name, photograph(), 20)
    assert (coded.at_minimum, coded.quality) == (True, 0)
    assert len(coded.data) > 20


def test_an_unknown_rival_is_refused():
    with pytest.raises(InvalidArgumentError, match="choose from avif, webp, jxl, jpeg"):
        rivals.check("gif")


def test_a_missing_plug_in_says_what_to_install(monkeypatch):
    monkeypatch.setattr(rivals, "find_spec", lambda name: None)
    with pytest.raises(InvalidArgumentError, match="pip install pillow-jxl-plugin"):
        rivals.check("jxl")
    monkeypatch.setattr(rivals.features, "check", lambda name: False)
    with pytest.raises(InvalidArgumentError, match="This Pillow writes no avif"):
        rivals.check("avif")
