"""For tests of the .dlf file: varints, no limits, and what every reader owes."""

from collections.abc import Callable

import pytest

from dlf.runtime.errors import DLFError
from dlf.runtime.libdlf import Limits

NO_LIMITS = Limits(max_pixels=2**42, max_side=2**21)


def varint(value: int) -> bytes:
    """The canonical varint of a value (docs/format.md, section 1)."""
    out = []
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def check_that_damage_is_refused(decode: Callable[[bytes], object], data: bytes) -> None:
    """The file decodes; none of its prefixes does, nor the file with any bit flipped."""
    decode(data)
    for end in range(len(data)):
        with pytest.raises(DLFError):
            decode(data[:end])
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DLFError):
            decode(bytes(damaged))
