"""Writing files whole or not at all, and where this user's cache is."""

import os
import stat
import tempfile
from pathlib import Path

from dlf.runtime.streams import write_all


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`: into a temporary file beside it, then renamed, so that no reader ever sees a part of it.

    A file that is replaced keeps its permissions. A symbolic link is followed. A device or a pipe, which must not be replaced
    by a file, is written to as it is; /dev/stdout and /dev/fd/N too, whatever they lead to.

    Raises:
        OSError: of the folder or the file, which `filename` names.
    """
    if not is_replaced(path):
        descriptor = _descriptor(path)
        with open(path if descriptor is None else os.dup(descriptor), "wb", buffering=0) as file:
            write_all(file, data)
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


def cache_folder() -> Path:
    """This user's folder for dlf's caches: below XDG_CACHE_HOME, or else below the home.

    Users without a home, as in containers, have one below /dev/null: nobody can make it, not even root.
    """
    try:
        home = Path.home()
    except RuntimeError:  # neither HOME nor an entry in passwd
        home = Path("/dev/null")
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "dlf"


def is_replaced(path: Path) -> bool:
    """Whether a result for `path` is put in the place of what is there, as of regular files, and not written into it."""
    return _descriptor(path) is None and (path.is_file() or not path.exists())


def _descriptor(path: Path) -> int | None:
    """The number of this process's open file that /dev/stdout, /dev/fd/N or a link to one of them stands for.

    Opened by its path, such a file would be truncated, and written from its beginning; a socket cannot be opened so at all.
    """
    place = os.path.abspath(path)
    for _ in range(40):  # links, of which Linux follows as many
        folder, name = os.path.split(place)
        if name.isdecimal() and os.path.realpath(folder) == f"/proc/{os.getpid()}/fd":
            return int(name)
        if not os.path.islink(place):
            break
        place = os.path.normpath(os.path.join(folder, os.readlink(place)))
    return None
