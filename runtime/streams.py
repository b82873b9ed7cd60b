"""Standard input and output as bytes: all of them, or an error."""

import errno
import os
import sys

STDIN, STDOUT = 0, 1


def read_stdin() -> bytes:
    """All of standard input.

    Raises:
        OSError: it is closed, or cannot be read.
    """
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer.read()


def write_stdout(data: bytes) -> None:
    """Write all of `data` to standard output.

    Raises:
        OSError: it is closed, its reader is gone, or its disk is full; a part may have been written.
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    sys.stdout.flush()
    rest = memoryview(data)
    while rest:  # without a buffer (PYTHONUNBUFFERED) one call may write a part
        rest = rest[sys.stdout.buffer.write(rest) or 0 :]
    sys.stdout.buffer.flush()


def abandon_stdout() -> None:
    """After a failure: let the interpreter's last flush go nowhere, or it would fail again and change the exit code."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, STDOUT)
        os.close(null)
    except OSError:
        pass
