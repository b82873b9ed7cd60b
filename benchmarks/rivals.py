"""Everyday codecs through Pillow: at the byte size nearest to ours, or at a quality.

At our rates most of them cannot make files so small: then their smallest file is used and marked.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from dlf.runtime.errors import InvalidArgumentError

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Rival:
    """A format of Pillow's with a quality of 0 to 100, and options for small files in acceptable time."""

    format: str
    options: dict[str, int | bool | str] = field(default_factory=dict)
    plugin: str = ""  # the module to import, and in PyPI's spelling the package to install


RIVALS = {
    "avif": Rival("AVIF", {"speed": 4, "subsampling": "4:2:0"}),
    "webp": Rival("WEBP", {"method": 6}),
    "jxl": Rival("JXL", {"effort": 9}, "pillow_jxl"),
    "jpeg": Rival("JPEG", {"optimize": True, "progressive": True, "subsampling": "4:2:0"}),
}
CURVE = (0, 10, 20, 30, 45, 60)  # the qualities that make a rival's curve, for BD-rates


@dataclass(frozen=True)
class Encoded:
    """A rival's file nearest to the size asked for."""

    data: bytes
    quality: int
    at_minimum: bool  # no smaller file is possible, and this one is larger than asked for


def check(name: str) -> None:
    """Raise InvalidArgumentError, saying what to install, if a rival is unknown or not installed."""
    if name not in RIVALS:
        raise InvalidArgumentError(f"There is no rival {name!r}; choose from {', '.join(RIVALS)}.")
    plugin = RIVALS[name].plugin
    if plugin and find_spec(plugin) is None:
        raise InvalidArgumentError(f"{name} needs Pillow's plug-in; run: pip install {plugin.replace('_', '-')}-plugin.")
    if name in ("avif", "webp") and not features.check(name):
        raise InvalidArgumentError(f"This Pillow writes no {name}; run: pip install --upgrade 'pillow>=11.3'.")


def encode(name: str, pixels: Pixels, size: int) -> Encoded:
    """Encode an image (H, W, 3) to the file whose size is nearest to `size` bytes, of all qualities."""
    quality, data = nearest(lambda quality: encode_at(name, pixels, quality), size)
    return Encoded(data, quality, quality == 0 and len(data) > size)


def encode_at(name: str, pixels: Pixels, quality: int) -> bytes:
    """Encode an image (H, W, 3) at a quality of 0 to 100."""
    rival, file = RIVALS[name], BytesIO()
    if rival.plugin:
        import_module(rival.plugin)
    Image.fromarray(pixels).save(file, rival.format, quality=quality, **rival.options)
    return file.getvalue()


def decode(data: bytes) -> Pixels:
    """Return the pixels (H, W, 3) of a rival's file."""
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def nearest(at: Callable[[int], bytes], size: int) -> tuple[int, bytes]:
    """Return the quality of 0 to 100 whose file is nearest to `size` bytes, the lower of equals, and the file.

    Files must grow with quality."""
    low, high = (0, at(0)), (101, b"")
    while len(low[1]) <= size and high[0] - low[0] > 1:
        middle = (low[0] + high[0]) // 2
        data = at(middle)
        low, high = ((middle, data), high) if len(data) <= size else (low, (middle, data))
    if high[1] and len(high[1]) - size < size - len(low[1]):
        return high
    return low
