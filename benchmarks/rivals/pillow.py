"""Everyday codecs, through Pillow."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO

import numpy as np
from PIL import Image, features

from dlf.benchmarks.rivals import Pixels
from dlf.runtime.errors import InvalidArgumentError


@dataclass(frozen=True)
class PillowRival:
    """A format of Pillow's with a quality of 0 to 100, and options for small files in acceptable time."""

    name: str
    options: dict[str, int | bool | str] = field(default_factory=dict)
    plugin: str = ""  # the module to import, and in PyPI's spelling the package to install
    qualities: Sequence[float] = range(101)
    curve: Sequence[float] = (0, 10, 20, 30, 45, 60)

    def encode(self, pixels: Pixels, quality: float) -> bytes:
        """Return the file of an image (H, W, 3) at a quality of 0 to 100."""
        file = BytesIO()
        if self.plugin:
            import_module(self.plugin)
        Image.fromarray(pixels).save(file, self.name.upper(), quality=quality, **self.options)
        return file.getvalue()

    def decode(self, data: bytes) -> Pixels:
        """Return the pixels (H, W, 3) of a file."""
        with Image.open(BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))


RIVALS = {
    rival.name: rival
    for rival in (
        PillowRival("avif", {"speed": 4, "subsampling": "4:2:0"}),
        PillowRival("webp", {"method": 6}),
        PillowRival("jxl", {"effort": 9}, "pillow_jxl"),
        PillowRival("jpeg", {"optimize": True, "progressive": True, "subsampling": "4:2:0"}),
    )
}


def find(name: str) -> PillowRival:
    """Return a rival by its name.

    Raises:
        InvalidArgumentError: it is unknown or not installed; the message says what to install.
    """
    if name not in RIVALS:
        raise InvalidArgumentError(f"There is no rival {name!r}; choose from {', '.join(RIVALS)}, or name a .toml file.")
    plugin = RIVALS[name].plugin
    if plugin and find_spec(plugin) is None:
        raise InvalidArgumentError(f"{name} needs Pillow's plug-in; run: pip install {plugin.replace('_', '-')}-plugin.")
    if name in ("avif", "webp") and not features.check(name):
        raise InvalidArgumentError(f"This Pillow writes no {name}; run: pip install --upgrade 'pillow>=11.3'.")
    return RIVALS[name]
