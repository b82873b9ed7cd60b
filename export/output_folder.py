"""Write a folder whole or not at all, in the place of one that may be there.

The new folder grows in a *workplace* beside its target, and the two are exchanged in one step. Where the file system has no such
step, the old folder goes into the workplace for a moment. A workplace is locked as long as its process lives: the next process
that makes one beside it knows by that which others are left by dead ones, puts back what those had taken away, and deletes them.
"""

import ctypes
import errno
import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dlf.runtime.errors import ExportError

log = logging.getLogger(__name__)

PREFIX = ".dlf-export-"  # of a workplace's name
REPLACED = "replaced"  # the folder in a workplace that holds the old folder, under its name
# <fcntl.h>, <linux/fs.h>
AT_FDCWD = -100
RENAME_EXCHANGE = 2


@contextmanager
def writing(output: Path, size: int) -> Iterator[Path]:
    """Give an empty folder to the block. It replaces `output` when the block ends, and is deleted if the block raises.

    `size` is about how many bytes the block will write. A symbolic link is followed.

    Raises:
        ExportError: the folder cannot be written, or its disk has no room; `output` is as it was.
    """
    output = Path(os.path.realpath(output))
    if os.path.ismount(output):
        raise ExportError(f"{output}: is where a file system is mounted, so it cannot be replaced; choose a folder in it")
    with workplace(output) as folder:
        free = shutil.disk_usage(folder).free
        if free < size:
            raise ExportError(
                f"{output}: its disk has {free / 1e6:.0f} MB free, and writing it takes {size / 1e6:.0f} MB; "
                "make room, or choose another place"
            )
        yield folder
        _put(folder, output, folder.parent)


@contextmanager
def workplace(output: Path) -> Iterator[Path]:
    """Give an empty folder in a workplace beside `output` to the block; delete that after it, and those of dead processes.

    Raises:
        ExportError: for any OSError, also of the block.
    """
    parent = Path(os.path.realpath(output)).parent
    place = parent / f"{PREFIX}{secrets.token_hex(8)}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        try:
            with ExitStack() as stack:
                with _locked(parent) as alone:  # until the new one is locked, another process would take it for a dead one's
                    if alone:
                        for other in parent.glob(f"{PREFIX}*"):
                            _clear(other)
                    place.mkdir()
                    stack.enter_context(_locked(place))
                folder = place / "new"  # not the locked one, where a workplace inside this one would wait for us
                folder.mkdir()
                yield folder
        finally:
            _delete(place)
    except OSError as error:
        culprit = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        raise ExportError(f"{output}: cannot be written ({culprit}{error.strerror or error})") from error


def _put(folder: Path, output: Path, place: Path) -> None:
    """Move a folder to `output`, and what is there into the workplace."""
    if not output.exists():
        folder.rename(output)
        return
    if _exchange(folder, output):
        return
    old = place / REPLACED / output.name
    old.parent.mkdir()
    try:
        output.rename(old)
        folder.rename(output)
    except BaseException:  # also a signal
        if not output.exists():
            old.rename(output)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step. Returns False, with nothing done, where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), os.fspath(other))


def _clear(place: Path) -> None:
    """Delete a workplace whose process is dead, and put back the folder that it had taken away."""
    with suppress(OSError), _locked(place, wait=False) as dead:
        if not dead:
            return
        for old in place.glob(f"{REPLACED}/*"):
            target = place.parent / old.name
            if not target.exists():
                old.rename(target)
                log.warning("%s: is back; an export that was to replace it was killed", target)
        _delete(place)


def _delete(place: Path) -> None:
    try:
        shutil.rmtree(place, ignore_errors=True)
    except BaseException:  # a signal's, which must not leave the rest
        shutil.rmtree(place, ignore_errors=True)
        raise


@contextmanager
def _locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Lock a folder for the block. It is given False if another process has it locked, or if the file system has no locks."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        locked = True
    except OSError:
        locked = False
    try:
        yield locked
    finally:
        os.close(handle)
