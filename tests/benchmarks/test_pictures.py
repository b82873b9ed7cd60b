from base64 import b64decode
from io import BytesIO

import numpy as np
from PIL import Image

from dlf.benchmarks import pictures


def shown(pixels):
    return Image.open(BytesIO(b64decode(pictures.data_uri(pixels).removeprefix("data:image/webp;base64,"))))


def test_a_picture_stays_what_it_is():
    pixels = np.full((40, 60, 3), (200, 30, 90), np.uint8)
    assert shown(pixels).format == "WEBP"
    assert np.abs(np.asarray(shown(pixels).convert("RGB"), float) - pixels).max() < 8


def test_a_huge_picture_is_scaled_down():
    assert shown(np.zeros((10, 2 * pictures.LONGEST_SIDE, 3), np.uint8)).size == (pictures.LONGEST_SIDE, 5)
