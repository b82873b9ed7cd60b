"""Writing files whole or not at all."""

import os
import stat
import tempfile
from pathlib import Path


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`: into a temporary file beside it, then renamed, so that no reader ever sees a part of it.

    A file that is replaced keeps its permissions. A symbolic link is followed. A device or a pipe, which must not be replaced
    by a file, is written to as it is; /dev/stdout and /dev/fd/N too, whatever they lead to.

    Raises:
        OSError: of the folder or the file, which `filename` names.
    """
    if not is_replaced(path):
        with open(path, "wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) or 0 :]
        return
    path = Path(os.path.realpath(path))
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        mode = 0o666 & ~mask
    # Of a name of its own: one made from the file's could be too long.
    handle, name = tempfile.mkstemp(prefix=".dlf.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        temporary.write_bytes(data)
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:  # also an interrupt
        temporary.unlink(missing_ok=True)
        raise


def is_replaced(path: Path) -> bool:
    """Whether a result for `path` is put in the place of what is there, as of regular files, and not written into it."""
    descriptor = os.path.dirname(os.path.abspath(path)) in ("/dev/fd", "/proc/self/fd") or str(path) == "/dev/stdout"
    return not descriptor and (path.is_file() or not path.exists())
