"""Standard streams: closed, full, without a reader, in parts, not blocking."""

import io
import os
import random
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from dlf.runtime.streams import read_stdin, write_stdout


class Raw(io.RawIOBase):
    """A stream whose write takes at most 3 bytes a call."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.written += bytes(data[:3])
        return min(3, len(data))


def test_partial_writes_are_continued(monkeypatch):
    raw = Raw()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, write_through=True))  # as with PYTHONUNBUFFERED
    write_stdout(b"0123456789")
    assert raw.written == b"0123456789"


def test_closed_streams_are_told(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OSError, match="standard input is closed"):
        read_stdin()
    with pytest.raises(OSError, match="standard output is closed"):
        write_stdout(b"")


def full_pipe() -> tuple[int, int]:
    """A pipe that takes no byte more, whose ends do not block."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    with suppress(BlockingIOError):
        while True:
            os.write(ends[1], bytes(1 << 16))
    return ends


def test_pipe_that_does_not_block_is_written_whole(monkeypatch):
    reader, writer = full_pipe()
    size = len(os.read(reader, 1 << 20))  # all that is in it
    os.write(writer, bytes(size))
    monkeypatch.setattr(sys, "stdout", os.fdopen(writer, "w"))
    data = random.Random(0).randbytes(3 * size)
    got: list[bytes] = []
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb") as file:
        thread = threading.Thread(target=lambda: got.append(file.read()))
        thread.start()
        write_stdout(data)
        sys.stdout.close()
        thread.join()
    assert got == [bytes(size) + data]


def test_pipe_that_does_not_block_is_read_whole(monkeypatch):
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    data = random.Random(0).randbytes(1 << 18)
    monkeypatch.setattr(sys, "stdin", os.fdopen(reader))

    def feed() -> None:
        with os.fdopen(writer, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    assert read_stdin() == data
    thread.join()
    sys.stdin.close()


PROGRAM = """
import sys
from dlf.runtime.streams import printing
with printing():
    print("a line")
print("went on", file=sys.stderr)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("stdout", "told"),
    [
        ("full", "standard output: cannot be written (No space left on device)\n"),
        ("closed", "standard output: cannot be written (it is closed)\n"),
        ("without a reader", ""),
    ],
)
def test_printing_ends_with_1_and_at_most_a_sentence(stdout, told, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe, open("/dev/full", "wb") as full:
        run = subprocess.run(
            ["sh", "-c", '"$0" -c "$1"' + (" >&-" if stdout == "closed" else ""), sys.executable, PROGRAM],
            stdout=full if stdout == "full" else pipe,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert (run.returncode, run.stderr) == (1, told)
