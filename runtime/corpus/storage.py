"""Files below a place that a URI or a path names: a local folder, s3://, gs://, hdfs:// by pyarrow, everything else by fsspec."""

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from dlf.runtime.errors import InvalidArgumentError
from dlf.runtime.files import write_atomically

_WRITES_WHOLE = ("s3", "gcs", "abfs")  # object stores show an object when all of it is there


@dataclass(frozen=True)
class Entry:
    """A file: its path below the place, with `/`, and its size in bytes."""

    path: str
    size: int


class Storage:
    """A place. It can be pickled, and then works in other processes that have the same storage.

    Args:
        uri: a local path, or a URI such as `s3://bucket/photos?region=eu-north-1`.

    Raises:
        InvalidArgumentError: nothing that is installed knows such a URI.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._files, self.root = _open(uri)
        self.is_local = isinstance(self._files, fs.LocalFileSystem)

    def read(self, path: str) -> bytes:
        """A file's bytes. Raises OSError."""
        with self._files.open_input_stream(self._at(path)) as file:
            return bytes(file.read())

    def size(self, path: str) -> int | None:
        """A file's size in bytes; None if there is no such file. Raises OSError."""
        info = self._files.get_file_info(self._at(path))
        return info.size if info.type == fs.FileType.File else None

    def write(self, path: str, data: bytes) -> None:
        """Write a file whole or not at all, and the folders that it needs. Raises OSError."""
        target = self._at(path)
        if self.is_local:
            os.makedirs(posixpath.dirname(target), exist_ok=True)
            write_atomically(Path(target), data)
            return
        whole = self._files.type_name in _WRITES_WHOLE
        if not whole:
            self._files.create_dir(posixpath.dirname(target), recursive=True)
        part = target if whole else f"{target}.part-{os.getpid()}"
        with self._files.open_output_stream(part) as file:
            file.write(data)
        if not whole:
            self._files.move(part, target)

    def delete(self, path: str) -> None:
        """Delete a file. Raises OSError."""
        self._files.delete_file(self._at(path))

    def entries(self, folder: str) -> tuple[list[Entry], list[str]]:
        """The files and the folders in a folder, both sorted, by their paths below the place; a missing folder is empty.

        Names that begin with `_` or `.` are left out, and links to folders are not followed. Raises OSError.
        """
        files, folders = [], []
        for name, size in self._names(folder):
            if not name.startswith(("_", ".")):
                path = f"{folder}/{name}" if folder else name
                if size is None:
                    folders.append(path)
                else:
                    files.append(Entry(path, size))
        return sorted(files, key=lambda entry: entry.path), sorted(folders)

    def walk(self) -> Iterator[tuple[str, list[Entry]]]:
        """Each folder, "" first, with its files.

        Raises:
            InvalidArgumentError: the place is not a folder.
            OSError: it cannot be read.
        """
        # An object store has no empty folders: a prefix without objects is not found.
        if self._files.get_file_info(self.root).type != fs.FileType.Directory:
            raise InvalidArgumentError(f"{self.uri} is not a folder; name the folder that holds the files.")
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            files, folders = self.entries(folder)
            yield folder, files
            waiting += reversed(folders)

    def _at(self, path: str) -> str:
        return posixpath.join(self.root, path) if path else self.root

    def _names(self, folder: str) -> Iterator[tuple[str, int | None]]:
        """The names in a folder, each with its size; folders have none."""
        if self.is_local:  # pyarrow stops at the first name that is no UTF-8
            try:
                with os.scandir(self._at(folder)) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            yield entry.name, None
                        elif entry.is_file():
                            yield entry.name, entry.stat().st_size
            except FileNotFoundError:
                return
            return
        for info in self._files.get_file_info(fs.FileSelector(self._at(folder), allow_not_found=True)):
            if info.type in (fs.FileType.File, fs.FileType.Directory):
                yield info.base_name, info.size if info.type == fs.FileType.File else None


def _open(uri: str) -> tuple[Any, str]:
    if "://" not in uri:
        return fs.LocalFileSystem(), os.path.abspath(uri)
    try:
        files, root = fs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid as error:
        try:
            import fsspec

            known, root = fsspec.core.url_to_fs(uri)
        except (ImportError, ValueError) as other:
            raise InvalidArgumentError(f"{uri}: {error}; by fsspec: {other}") from error
        files = fs.PyFileSystem(fs.FSSpecHandler(known))
    return files, root.rstrip("/") or "/"
