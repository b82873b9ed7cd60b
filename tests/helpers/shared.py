"""What takes long to make, and is made once for all processes of a run (pytest-xdist's workers)."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The path `name` in the run's folder; the first process that asks makes it, and the others wait. Not to be changed."""
    own = factory.getbasetemp()
    path = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    made = path.with_name(f"{name}.made")
    with FileLock(path.with_name(f"{name}.lock")):
        if not made.exists():
            make(path)
            made.touch()
    return path
