import io
import sys

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
