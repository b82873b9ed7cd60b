"""Standard input and output: all of them, or an error. A pipe may take or give a part at a time, or nothing yet."""

import errno
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NoReturn

STDOUT = 1
CHUNK = 1 << 20


def read_stdin() -> bytes:
    """All of standard input.

    Raises:
        OSError: it is closed, or cannot be read.
    """
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    stream = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    parts: list[bytes] = []
    while (part := stream.read(CHUNK)) != b"":
        if part is None:  # of a pipe that does not block
            select.select((stream,), (), ())
        else:
            parts.append(part)
    return b"".join(parts)


def write_stdout(data: bytes) -> None:
    """Write all of `data` to standard output.

    Raises:
        OSError: it is closed, its reader is gone, or its disk is full; a part may have been written.
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    sys.stdout.flush()
    write_all(getattr(sys.stdout.buffer, "raw", sys.stdout.buffer), data)


def write_all(stream: BinaryIO, data: bytes | memoryview) -> None:
    """Write all of `data` to a file without a buffer, which may take a part at a time.

    Raises:
        OSError: it cannot be written; a part may have been.
    """
    rest = memoryview(data).cast("B")
    while rest:
        written: int | None = stream.write(rest)
        if written is None:  # of a full pipe that does not block
            select.select((), (stream,), ())
        else:
            rest = rest[written:]


@contextmanager
def printing() -> Iterator[None]:
    """Print in this context: at its end all is written, or else the process ends with exit code 1.

    It ends with a word on standard error, but silently if the reader of a pipe has closed it, since that wants no more.
    """
    if sys.stdout is None:
        _give_up(OSError(errno.EBADF, "it is closed"))
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # of another file
            raise
        _give_up(error)


def _give_up(error: OSError) -> NoReturn:
    abandon_stdout()
    if error.errno != errno.EPIPE:
        print(f"standard output: cannot be written ({error.strerror})", file=sys.stderr)
    raise SystemExit(1) from None


def abandon_stdout() -> None:
    """After a failure: let the interpreter's last flush go nowhere, or it would fail again and change the exit code."""
    if sys.stdout is None:  # then another file may have its number
        return
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, STDOUT)
        os.close(null)
    except OSError:
        pass
