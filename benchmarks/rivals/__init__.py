"""Other codecs beside ours: at the byte size nearest to ours, or at a quality.

At our rates most of them cannot make files so small: then their smallest file is used and marked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class Rival(Protocol):
    """A codec with a scale of qualities."""

    @property
    def name(self) -> str:
        """Its name in reports."""
        ...

    @property
    def qualities(self) -> Sequence[float]:
        """What it can be asked for, in the order of growing files; at least one."""
        ...

    @property
    def curve(self) -> Sequence[float]:
        """The qualities that make its curve, for BD-rates."""
        ...

    def encode(self, pixels: Pixels, quality: float) -> bytes:
        """Return the file of an sRGB image (H, W, 3) at one of `qualities`."""
        ...

    def decode(self, data: bytes) -> Pixels:
        """Return the pixels (H, W, 3) of a file that `encode` returned."""
        ...


@dataclass(frozen=True)
class Encoded:
    """A rival's file nearest to the size asked for."""

    data: bytes
    quality: float
    at_minimum: bool  # no smaller file is possible, and this one is larger than asked for


def encode(rival: Rival, pixels: Pixels, size: int) -> Encoded:
    """Encode an image (H, W, 3) to the file whose size is nearest to `size` bytes, of all qualities."""
    index, data = nearest(lambda index: rival.encode(pixels, rival.qualities[index]), len(rival.qualities), size)
    return Encoded(data, rival.qualities[index], index == 0 and len(data) > size)


def nearest(at: Callable[[int], bytes], count: int, size: int) -> tuple[int, bytes]:
    """Return which of `count` files is nearest to `size` bytes, the first of equals, and the file.

    Files must grow with their index."""
    low, high = (0, at(0)), (count, b"")
    while len(low[1]) <= size and high[0] - low[0] > 1:
        middle = (low[0] + high[0]) // 2
        data = at(middle)
        low, high = ((middle, data), high) if len(data) <= size else (low, (middle, data))
    if high[1] and len(high[1]) - size < size - len(low[1]):
        return high
    return low
