"""dlf: a runtime for DLF, a learned image codec for 0.008 to 0.03 bits per pixel.

    codec = dlf.Codec()  # the built-in model; or a bundle
    data = codec.encode("photo.jpg")
    image = codec.decode(data)
    dlf.info(data)

Importing it imports neither torch nor a backend.
"""

from typing import TYPE_CHECKING

from dlf.runtime.codec import Codec
from dlf.runtime.errors import (
    BackendFailedError,
    BackendMissingError,
    BundleBrokenError,
    BundleForeignError,
    CheckpointError,
    ChecksumError,
    DLFError,
    ExportError,
    ImageError,
    InvalidArgumentError,
    NotDLFError,
    OutOfMemoryError,
    SizeLimitError,
    StreamCorruptError,
    TokensMissingError,
    TrailingBytesError,
    TruncatedError,
    UnsupportedVersionError,
    WrongModelError,
)
from dlf.runtime.images import metadata_of
from dlf.runtime.info import Info, info
from dlf.runtime.libdlf import Limits, Metadata, read_metadata, replace_metadata

__all__ = [
    "BackendFailedError",
    "BackendMissingError",
    "BundleBrokenError",
    "BundleForeignError",
    "CheckpointError",
    "ChecksumError",
    "Codec",
    "DLFError",
    "ExportError",
    "ImageError",
    "Info",
    "InvalidArgumentError",
    "Limits",
    "Metadata",
    "NotDLFError",
    "OutOfMemoryError",
    "SizeLimitError",
    "StreamCorruptError",
    "TokensMissingError",
    "TrailingBytesError",
    "TruncatedError",
    "UnsupportedVersionError",
    "WrongModelError",
    "info",
    "metadata_of",
    "read_metadata",
    "replace_metadata",
]

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """The version, when it is asked for: the reader of packages' metadata takes as long to import as all of dlf."""
        if name != "__version__":
            raise AttributeError(f"module 'dlf' has no attribute {name!r}")
        from importlib.metadata import version

        return version("dlf")
