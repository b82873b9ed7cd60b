import os
import pwd
import socket
from pathlib import Path

import pytest

from dlf.runtime.files import cache_folder, is_replaced, write_atomically


def test_new_file_has_the_usual_permissions(tmp_path):
    mask = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new", b"content")
    finally:
        os.umask(mask)
    assert (tmp_path / "new").read_bytes() == b"content"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError])
def test_failure_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, failure):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    write = Path.write_bytes

    def write_half(path: Path, data: bytes) -> int:
        write(path, data[: len(data) // 2])
        raise failure

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(failure):
        write_atomically(target, b"new content")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_symbolic_link_is_followed(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, b"content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert pipe.is_fifo()


def test_replaced_file_keeps_its_permissions(tmp_path):
    (tmp_path / "private").write_bytes(b"old")
    (tmp_path / "private").chmod(0o600)
    write_atomically(tmp_path / "private", b"new")
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600


def test_longest_name_can_be_written(tmp_path):
    write_atomically(tmp_path / ("x" * 255), b"new")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


def test_descriptor_is_written_to(tmp_path):
    with (tmp_path / "out").open("wb") as file:
        write_atomically(Path(f"/dev/fd/{file.fileno()}"), b"content")
    assert (tmp_path / "out").read_bytes() == b"content"


@pytest.mark.parametrize("link", [False, True])
def test_open_file_that_has_a_path_is_written_on_from_where_it_is(tmp_path, link):
    with (tmp_path / "out").open("wb", buffering=0) as file:
        file.write(b"before, ")
        path = Path(f"/dev/fd/{file.fileno()}")
        if link:
            (tmp_path / "link").symlink_to(path)
            path = tmp_path / "link"
        assert not is_replaced(path)
        write_atomically(path, b"content")
        file.write(b", after")
    assert (tmp_path / "out").read_bytes() == b"before, content, after"


def test_socket_is_written_by_its_number():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        write_atomically(Path(f"/proc/self/fd/{ours.fileno()}"), b"content")
        assert theirs.recv(100) == b"content"


def test_closed_descriptor_is_an_error_and_no_file():
    with pytest.raises(OSError, match="Bad file descriptor"):
        write_atomically(Path("/dev/fd/987"), b"content")


def test_cache_of_a_user_without_a_home_is_nowhere(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # KeyError for each, as the real one has it
    assert not cache_folder().exists()
    with pytest.raises(NotADirectoryError):
        cache_folder().mkdir(parents=True)  # also where root runs this
