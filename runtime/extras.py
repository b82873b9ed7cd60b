"""Packages that only an extra of the distribution installs."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from dlf.runtime.errors import BackendMissingError


@contextmanager
def needing(command: str, extra: str, packages: Collection[str]) -> Iterator[None]:
    """Say what to install if one of a command's packages cannot be imported.

    Raises:
        BackendMissingError: it is missing; the message names the extra.
    """
    try:
        yield
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in packages:
            raise
        raise BackendMissingError(f"{command} needs {missing}, which is not installed; pip install 'dlf[{extra}]'") from error
