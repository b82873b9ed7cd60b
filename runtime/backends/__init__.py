"""Backends run the bundle's ONNX stages, in float32; this is the protocol that they share. `choice` picks and opens one.

A backend's library is imported when the backend is opened, never before.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = dict[str, NDArray[np.float32]]


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
