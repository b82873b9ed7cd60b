"""Writing files whole or not at all."""

import os
from pathlib import Path


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`: into a temporary file beside it, then renamed, so that no reader ever sees a part of it.

    A symbolic link is followed. A device or a pipe, which must not be replaced by a file, is written to as it is.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:  # also an interrupt
        temporary.unlink(missing_ok=True)
        raise
