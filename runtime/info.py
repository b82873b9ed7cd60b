"""Describe a `.dlf` file from its header, without a model."""

from dataclasses import asdict, dataclass
from typing import Any

from dlf.runtime.formats import TILE
from dlf.runtime.libdlf import Limits, parse_file, read_metadata


@dataclass(frozen=True)
class PartSizes:
    """Sizes in bytes of a `.dlf` file and of its parts, in the order of the file."""

    total: int
    header: int
    tokens: int
    detail: int
    checksum: int
    metadata: int


@dataclass(frozen=True)
class Info:
    """A `.dlf` file's description, as `dlf.info` returns it."""

    width: int  # of the image, in pixels
    height: int
    version: int  # of the file format
    fingerprint: str  # of the model that wrote it: four hexadecimal digits
    tiles: int  # 256x256 tiles that were coded
    bytes: PartSizes
    exif: int  # bytes of the EXIF and the XMP that are kept
    xmp: int

    @property
    def bpp(self) -> float:
        """Bits of the whole file per pixel of the image."""
        return 8 * self.bytes.total / (self.width * self.height)

    @property
    def padding_waste(self) -> float:
        """The share of the coded area that is padding, from 0 to below 1."""
        return 1 - self.width * self.height / (self.tiles * TILE**2)

    def to_dict(self) -> dict[str, Any]:
        """Return all values in a dictionary that can be written as JSON."""
        return {**asdict(self), "bpp": self.bpp, "padding_waste": self.padding_waste}


def info(data: bytes, *, limits: Limits | None = None) -> Info:
    """Describe a `.dlf` file, given as its bytes, after checking everything that can be checked without a model.

    Raises:
        NotDLFError, UnsupportedVersionError, TruncatedError, TokensMissingError, ChecksumError: it is damaged or foreign.
        SizeLimitError: the image is larger than `limits` allows.
    """
    file = parse_file(data, limits)
    kept = read_metadata(data)
    return Info(
        width=file.width,
        height=file.height,
        version=file.version,
        fingerprint=f"{file.fingerprint:04x}",
        tiles=file.tiles,
        bytes=PartSizes(
            len(data), file.header_bytes, file.token_bytes, file.detail_bytes, file.checksum_bytes, file.metadata_bytes
        ),
        exif=len(kept.exif),
        xmp=len(kept.xmp),
    )
