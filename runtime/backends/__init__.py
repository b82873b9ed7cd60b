"""Backends run the bundle's ONNX stages, in float32; this is the protocol that they share. `choice` picks and opens one.

A backend's library is imported when the backend is opened, never before.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dlf.runtime.errors import BundleBrokenError

if TYPE_CHECKING:
    from dlf.runtime.bundles.bundle import Bundle

Arrays: TypeAlias = dict[str, NDArray[np.float32]]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


class Stage(Protocol):
    """A loaded stage."""

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run it: named arrays in, named arrays out, all float32. Fails with whatever the library raises."""
        ...


class HasStages(Protocol):
    """What a backend on the CPU needs of a bundle."""

    def stage(self, name: str) -> Path:
        """The ONNX file of a stage, with its external data beside it."""
        ...


class HasDigests(HasStages, Protocol):
    """What a backend needs of a bundle that keeps what it makes of a stage."""

    def stage_digest(self, name: str) -> str:
        """What differs for stages that compute something else: a SHA-256 in hexadecimal."""
        ...


class Backend(Protocol):
    """A library that runs stages. A module `dlf.runtime.backends.NAME` holds one, as its `open_backend(threads)`."""

    name: str
    device: str  # as the library names it
    precision: str  # of the arithmetic, such as "fp32"
    versions: Mapping[str, str]  # library -> version
    on_cpu: bool  # whether it runs stages on the CPU; then libdlf goes on with the pixel generator where it can
    threads: int | None  # CPU threads; None for as many as the library chooses

    def load(self, bundle: "Bundle", stage: str) -> Stage:
        """Load a stage of a bundle, whose files are checked first.

        Raises BundleBrokenError; fails with whatever the library raises.
        """
        ...


@runtime_checkable
class CanLoadForOneRun(Protocol):
    """A backend on which a stage takes less memory if it is loaded for the shapes of the only run that it is for."""

    def load_for_one_run(self, bundle: "Bundle", stage: str, shapes: Shapes) -> Stage:
        """As `Backend.load`; `shapes` are those of the run's inputs, by name."""
        ...


@runtime_checkable
class CanClose(Protocol):
    """A backend that holds more than memory of this process."""

    def close(self) -> None:
        """Release it; the backend is of no use afterwards."""
        ...


def require_float32(file: Path, types: Mapping[str, str], float32: str) -> None:
    """Refuse a stage that takes or gives anything else: libraries would convert it without a word, and round the codec's values.

    `types` has the type of each input and output, as the library names it, and `float32` is that of float32.

    Raises:
        BundleBrokenError: one is of another type.
    """
    for name, found in types.items():
        if found != float32:
            raise BundleBrokenError(f"{file}: {name} is of {found}, not of float32; export the bundle again.")
