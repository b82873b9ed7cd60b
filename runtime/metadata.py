"""EXIF and XMP on their way from a picture's file through a .dlf file to a picture's file."""

import re
import struct
from typing import Any

from PIL.PngImagePlugin import PngInfo

from dlf.runtime.libdlf import Metadata

_PREFIX = b"Exif\0\0"  # of EXIF in JPEG, and in Pillow
_ORIENTATION, _SHORT = 0x0112, 3
_XMP_IN_PNG = "XML:com.adobe.xmp"
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8]")

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")  # those whose files get metadata, by Pillow's names


def upright(exif: bytes, xmp: bytes) -> Metadata:
    """The metadata of a picture that has been turned upright: only the orientation, if they tell one, becomes 1.

    `exif` may have JPEG's prefix. Raises ValueError: it is no EXIF.
    """
    return Metadata(_upright(bytearray(exif.removeprefix(_PREFIX))), _XMP_ORIENTATION.sub(rb"\g<1>1", xmp))


def _upright(exif: bytearray) -> bytes:
    if not exif:
        return b""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(exif[:4]))
    if order is None:
        raise ValueError("it does not begin as TIFF does")
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            (tag,) = struct.unpack_from(f"{order}H", exif, at)
            if tag == _ORIENTATION:
                struct.pack_into(f"{order}HHIHH", exif, at, tag, _SHORT, 1, 1, 0)
    except struct.error as error:
        raise ValueError("it ends within its first directory") from error
    return bytes(exif)


def save_options(name: str, metadata: Metadata) -> dict[str, Any]:
    """What Pillow is told to save metadata in a file of a format of `FORMATS`."""
    options: dict[str, Any] = {}
    if metadata.exif:
        options["exif"] = _PREFIX + metadata.exif
    if metadata.xmp and name == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt(_XMP_IN_PNG, metadata.xmp.decode(errors="replace"))
    elif metadata.xmp:
        options["xmp"] = metadata.xmp
    return options


def in_pillow(metadata: Metadata) -> dict[str, bytes]:
    """Metadata as entries of the `info` of a Pillow image."""
    return {**({"exif": _PREFIX + metadata.exif} if metadata.exif else {}), **({"xmp": metadata.xmp} if metadata.xmp else {})}


def from_pillow(info: dict[Any, Any]) -> tuple[bytes, bytes]:
    """EXIF and XMP, as they are, in the `info` of a Pillow image; empty where there is none."""
    xmp = info.get("xmp") or info.get(_XMP_IN_PNG) or b""
    return info.get("exif") or b"", xmp.encode() if isinstance(xmp, str) else xmp
