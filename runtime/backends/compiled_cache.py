"""Stages as a backend's library compiled them, kept for the next process: it takes them in a quarter of the time.

Each is a file in the user's cache folder, named by all that it depends on: the SHA-256 of what the library exported, and that.
One that is damaged, or that the library does not take, is compiled and written again.
"""

import hashlib
import json
import logging
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from dlf.runtime.files import cache_folder, write_atomically

LIMIT = 256 << 20  # bytes of the folder; what was not used for longest goes first

_DIGEST = hashlib.sha256().digest_size
_log = logging.getLogger(__name__)


def folder() -> Path:
    """Return the folder of the compiled stages."""
    return cache_folder() / "compiled"


def place(stage: str, library: str, version: str, settings: Mapping[str, object]) -> Path:
    """Return the path of a compiled stage, which need not be there.

    Args:
        stage: SHA-256 of the stage's graph and weights.
        library: the library that compiles it.
        version: the library's.
        settings: what else its compilation depends on.
    """
    facts = [stage, library, version, sorted(settings.items()), _processor()]
    return folder() / hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def read(path: Path) -> bytes | None:
    """Return what `write` was given last; None if there is nothing, or if it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    content = data[_DIGEST:]
    if hashlib.sha256(content).digest() != data[:_DIGEST]:
        _log.info("%s is damaged; it is written again.", path)
        return None
    with suppress(OSError):  # of a folder that is only read
        os.utime(path)
    return content


def write(path: Path, content: bytes) -> None:
    """Keep a compiled stage. Where that cannot be, the next process compiles it again."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, hashlib.sha256(content).digest() + content)
        _drop_oldest(path.parent)
    except OSError as error:
        _log.info("%s cannot be written (%s).", path, error.strerror)


def _drop_oldest(folder: Path) -> None:
    found = []
    for path in folder.iterdir():  # with those that killed processes left unfinished
        with suppress(FileNotFoundError):  # another process has dropped it
            found.append((path.stat(), path))
    excess = sum(status.st_size for status, _ in found) - LIMIT
    for status, path in sorted(found, key=lambda each: each[0].st_mtime):
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= status.st_size


@cache
def _processor() -> list[str]:
    """What this processor can do. Its name does not tell: virtual machines have the same on different processors."""
    with suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith(("flags", "Features")):  # on x86, on Arm
                return line.split()[2:]
    return [platform.machine(), platform.processor()]
