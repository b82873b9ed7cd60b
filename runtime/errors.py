"""The exceptions of dlf: one class for each kind of refusal, all derived from `DLFError`.

The codes are those of `dlf_result` in `dlf.h`, so that an error has one number in C and in Python.
A message names the file, what is wrong with it, and the remedy.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class DLFError(Exception):
    """Base of all exceptions of dlf.

    Attributes:
        code: the error's number in `dlf.h`.
        index: which of many items it is about, counted from 0; the message begins with it. None for a single item.
    """

    code = 0
    index: int | None = None

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.index is None else f"item {self.index}: {message}"


class InvalidArgumentError(DLFError, ValueError):
    """An argument is out of its range."""

    code = 1


class OutOfMemoryError(DLFError, MemoryError):
    """An image takes more memory than there is, or than the limit allows; it was refused before the work, or the work failed."""

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
    """The file is too short to hold the tokens of its image size, and its checksum and metadata."""

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


def indexed(index: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return `work(*args, **kwargs)`; an error that it raises gets the index."""
    try:
        return work(*args, **kwargs)
    except DLFError as error:
        error.index = index
        raise


@contextmanager
def reindexed(indexes: Sequence[int | None]) -> Iterator[None]:
    """Give an error about item i of a batch the index `indexes[i]`, that of the item in what the caller passed."""
    try:
        yield
    except DLFError as error:
        if error.index is not None:
            error.index = indexes[error.index]
        raise
