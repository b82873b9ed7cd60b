"""Opening images with Pillow, without a size limit of its own."""

import threading
from typing import BinaryIO

from PIL import Image

_lock = threading.Lock()


def open_unlimited(file: BinaryIO, formats: tuple[str, ...] | None = None) -> Image.Image:
    """`Image.open` without Pillow's size limit, a global. It decodes nothing yet: the caller checks the size first."""
    with _lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
