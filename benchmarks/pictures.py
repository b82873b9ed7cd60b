"""Pictures for the reports, as data URIs; every codec's are made in the same way."""

from base64 import b64decode, b64encode
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_IMAGES = 48  # that a page shows; a browser has to hold them all
LONGEST_SIDE = 2048  # larger pictures are scaled down
QUALITY = 95  # of WebP: no visible difference, at a fifth of PNG's bytes


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Return an image (H, W, 3) as WebP in a data URI."""
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = BytesIO()
    image.save(file, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + b64encode(file.getvalue()).decode()


def from_data_uri(uri: str) -> Image.Image:
    """Return the image of a data URI."""
    return Image.open(BytesIO(b64decode(uri.partition(",")[2])))
