"""PNG files as Pillow is to see them: without metadata that no picture needs, and with the facts that Pillow leaves out.

Pillow refuses a whole file over a long text or an odd chunk of metadata; it ignores cICP; and of 16-bit colours it keeps 8 bits.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Beside those that begin with a capital, which no reader may skip: the chunks of colours, and those that tell of more frames.
_KEPT = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"iCCP", b"eXIf", b"acTL", b"fcTL")
)
_ORIENTED = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # texts that may hold the orientation
_MOST_METADATA = 1 << 20  # bytes of one chunk, inflated; Pillow's own limit of a text


@dataclass(frozen=True)
class PNG:
    """A PNG file without needless chunks; `cicp` are the codes of its colours, `dropped` the useful chunks that are too large."""

    data: bytes
    depth: int  # bits a sample
    cicp: tuple[int, int, int, int] | None
    dropped: tuple[str, ...]


def simplify(data: bytes) -> PNG:
    """Read a PNG file's chunks. Damage is left in place, for the decoder to find."""
    kept, dropped, cicp, coded = [SIGNATURE], [], None, False
    for kind, body, whole in _chunks(data):
        coded = coded or kind == b"IDAT"
        if kind in (b"iCCP", b"eXIf") and _size(kind, body) > _MOST_METADATA:
            dropped.append(kind.decode())
            continue
        if kind == b"cICP" and len(body) == 4 and not coded:
            cicp = (body[0], body[1], body[2], body[3])
        text = kind in (b"tEXt", b"zTXt", b"iTXt") and body.startswith(_ORIENTED) and _size(kind, body) <= _MOST_METADATA
        if (kind in _KEPT and not (kind == b"fcTL" and coded)) or text or not kind[:1].islower():
            kept.append(whole)
    return PNG(b"".join(kept), data[24] if len(data) > 24 else 0, cicp, tuple(dropped))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """The kind, the content and the whole of each chunk; what is cut off at the end is a chunk of its own, of kind IDAT."""
    at = len(SIGNATURE)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            yield b"IDAT", b"", data[at:]
            return
        yield data[at + 4 : at + 8], data[at + 8 : end - 4], data[at:end]
        at = end


def _size(kind: bytes, body: bytes) -> int:
    """Bytes of a chunk of metadata, inflated if it is deflated; at most one more than the limit is looked at."""
    _keyword, _, rest = body.partition(b"\0")
    if kind in (b"iCCP", b"zTXt"):
        deflated = rest[1:]
    elif kind == b"iTXt" and rest[:1] == b"\1":
        deflated = rest[2:].split(b"\0", 2)[-1]
    else:
        return len(body)
    try:
        return len(zlib.decompressobj().decompress(deflated, _MOST_METADATA + 1))
    except zlib.error:
        return len(deflated)
