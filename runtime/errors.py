"""Every refusal of dlf, one class each, under `DLFError`.

The codes are those of `dlf_result` in `dlf.h`, so that an error has one number in C and in Python.
Messages name the file, the fact and the remedy.
"""


class DLFError(Exception):
    """Base of all refusals. `code` is the number of the refusal in `dlf.h`; `index` the item's, where many were given."""

    code = 0
    index: int | None = None


class InvalidArgumentError(DLFError, ValueError):
    """An argument is out of its range."""

    code = 1


class OutOfMemoryError(DLFError, MemoryError):
    """The entropy core could not get the memory that it needs."""

    code = 2


class NotDLFError(DLFError):
    """The data are not a .dlf file."""

    code = 10


class UnsupportedVersionError(DLFError):
    """A .dlf file of a format version that this dlf does not know."""

    code = 11


class TruncatedError(DLFError):
    """The file ends inside its header or its detail stream."""

    code = 12


class TrailingBytesError(DLFError):
    """Bytes are left in the file after the last symbol."""

    code = 13


class ChecksumError(DLFError):
    """The file's checksum does not match its bytes."""

    code = 14


class SizeLimitError(DLFError):
    """The image has more pixels, or a longer side, than the limits allow."""

    code = 15


class TokensMissingError(DLFError):
    """The file is too short to hold the tokens of its image size."""

    code = 16


class WrongModelError(DLFError):
    """The file was written with another model than the one that is to decode it."""

    code = 17


class StreamCorruptError(DLFError):
    """The rANS state is not final after the last symbol, or a symbol or token is out of range."""

    code = 18


class BundleBrokenError(DLFError):
    """A file of the bundle is missing, malformed, or not what its hash says."""

    code = 30


class BundleForeignError(DLFError):
    """Not a bundle, or one of a format version that this dlf does not know."""

    code = 31


class BackendMissingError(DLFError):
    """The backend asked for is not installed."""

    code = 40


class BackendFailedError(DLFError):
    """The backend could not load or run a stage."""

    code = 41


class ImageError(DLFError):
    """An image that cannot be read, or whose form is not supported."""

    code = 42


class CheckpointError(DLFError):
    """Not a DLF checkpoint, or one with missing, unexpected or misshapen tensors."""

    code = 43


class ExportError(DLFError):
    """An exported stage or table does not do what the model does."""

    code = 44


BY_CODE: dict[int, type[DLFError]] = {cls.code: cls for cls in DLFError.__subclasses__()}
