"""JPEG files that end before their picture does.

A file that is cut off is refused by the decoder. One that was closed in the middle, with the marker of the end, is not: the
missing part comes out gray, or, of a progressive file, blurred.
"""

import re
from collections.abc import Iterator
from io import BytesIO

import numpy as np

from dlf.runtime.pillow import open_unlimited

SIGNATURE = b"\xff\xd8"

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # ends a scan; 00 and the restart markers do not
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_PROGRESSIVE = 0xC2
_ARITHMETIC = (0xC9, 0xCA)


def ends_early(data: bytes) -> bool:
    """Whether the picture of a JPEG file that the decoder accepts is incomplete; also if a header of it is cut off."""
    try:
        return _ends_early(data)
    except (IndexError, OSError):
        return True


def _ends_early(data: bytes) -> bool:
    """See `ends_early`.

    A scan that is whole takes no notice of what follows it: so the picture must stay the same if its last scan is followed by
    other data. A progressive file must also have had scans down to the last bit of every coefficient.
    """
    progressive, end = False, None
    missing: dict[tuple[int, int], int] = {}  # component, coefficient -> bits that no scan had yet
    for marker, at, body in _segments(data):
        if marker == _END_OF_IMAGE:
            end = at
        elif marker in _ARITHMETIC:  # its data may end early, and what follows would be read
            return False
        elif marker == _PROGRESSIVE:
            progressive = True
            components = [body[6 + 3 * i] for i in range(body[5])]
            missing = {(component, band): 1 for component in components for band in range(64)}
        elif marker == _START_OF_SCAN and progressive:
            count = body[0]
            first, last, bits = body[1 + 2 * count], body[2 + 2 * count], body[3 + 2 * count] & 15
            missing.update({(body[1 + 2 * i], band): bits for i in range(count) for band in range(first, last + 1)})
    if any(missing.values()) or end is None:
        return any(missing.values())
    # Restart markers among them, so that a decoder that waits for one finds it.
    noise = np.random.default_rng(0).integers(0, 255, (9, 4096), dtype=np.uint8)
    other = b"".join(noise[i].tobytes() + bytes((0xFF, 0xD0 + i % 8)) for i in range(9))
    return not np.array_equal(_decoded(data, progressive), _decoded(data[:end] + other + data[end:], progressive))


def _decoded(data: bytes, progressive: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with open_unlimited(BytesIO(data)) as image:
        if not progressive:  # where a scan has whole blocks, an eighth of the size shows them all
            image.draft(image.mode, (1, 1))
        return np.asarray(image)


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The marker, the place and the content of each segment, up to the end of the image."""
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = data[found.start() + 1], found.start()
        length = 0 if marker == _END_OF_IMAGE else int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at, data[at + 4 : at + 2 + length]
        if marker == _END_OF_IMAGE:
            return
        at += 2 + length
