"""Backends run the bundle's ONNX stages, in float32; this is the protocol that they share, and the choice of one.

A backend's library is imported when the backend is opened, never before.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlf.runtime.errors import BackendFailedError, BackendMissingError, InvalidArgumentError

Arrays: TypeAlias = dict[str, NDArray[np.float32]]

# Module in this package -> what to install; in the order in which they are tried. Each is named after the library it imports.
INSTALL = {"openvino": "pip install 'dlf[cpu]'", "onnxruntime": "pip install 'dlf[onnxruntime]'"}


class Stage(Protocol):
    """A loaded stage."""

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run it: named arrays in, named arrays out, all float32. Fails with whatever the library raises."""
        ...


class Backend(Protocol):
    """A library that runs stages. A module `dlf.runtime.backends.NAME` holds one, as its `open_backend(threads)`."""

    name: str
    device: str  # as the library names it
    precision: str  # of the arithmetic, such as "fp32"
    versions: Mapping[str, str]  # library -> version

    def load(self, file: Path) -> Stage:
        """Load an ONNX file, with the external data beside it. Fails with whatever the library raises."""
        ...


def installed() -> list[str]:
    """The names of the backends whose library is installed, best first."""
    return [name for name in INSTALL if find_spec(name)]


def choose(name: str | None) -> tuple[str, str]:
    """The backend that is opened when `name`, or by None the best, is asked for, and why, in words.

    Raises:
        InvalidArgumentError: there is no backend of that name.
        BackendMissingError: it is not installed, or none is.
    """
    available = installed()
    if name is None:
        if not available:
            raise BackendMissingError(f"No backend is installed; run: {' or: '.join(INSTALL.values())}.")
        return available[0], f"the first of {', '.join(INSTALL)} that is installed"
    if name not in INSTALL:
        raise InvalidArgumentError(f"There is no backend {name!r}; choose from {', '.join(INSTALL)}.")
    if name not in available:
        raise BackendMissingError(f"The backend {name} is not installed; run: {INSTALL[name]}.")
    return name, "asked for"


def open_backend(name: str | None, threads: int | None) -> Backend:
    """Open the backend that `choose` gives; `threads` CPU threads, or as many as the library chooses.

    Raises:
        InvalidArgumentError: there is no backend of that name, or `threads` is below 1.
        BackendMissingError: it is not installed, or none is.
        BackendFailedError: it is installed but does not start.
    """
    if threads is not None and threads < 1:
        raise InvalidArgumentError(f"threads is {threads}; it must be at least 1.")
    name, _ = choose(name)
    try:
        backend: Backend = import_module(f"{__name__}.{name}").open_backend(threads)
    except Exception as error:
        raise BackendFailedError(f"The backend {name} does not start ({type(error).__name__}: {error}).") from error
    return backend
