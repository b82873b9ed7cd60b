"""Help for the steps: the GPU that is checked, and the comparison of arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlf.benchmarks.gpu_check.findings import SkippedError
from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime.bundles import builtin
from dlf.runtime.gpu import driver
from dlf.runtime.gpu.device import Device


def open_gpu() -> Device:
    """Open the first GPU. Raises SkippedError if there is none."""
    if (why := driver.missing()) is not None:
        raise SkippedError(why)
    return Device()


def builtin_tables() -> EntropyTables:
    """Return the built-in model's entropy model."""
    return EntropyTables.from_bytes((builtin.path() / "entropy.bin").read_bytes())


def difference(got: NDArray[Any], want: NDArray[Any]) -> str | None:
    """Return how two arrays differ, bit by bit, in words; None if they do not."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype} {got.shape}, not {want.dtype} {want.shape}"
    bits = f"u{want.dtype.itemsize}"
    wrong = np.flatnonzero(np.ascontiguousarray(got).view(bits).ravel() != np.ascontiguousarray(want).view(bits).ravel())
    if not wrong.size:
        return None
    first = wrong[0]
    return f"{wrong.size} of {want.size} values differ, the first at {first}: {got.ravel()[first]}, not {want.ravel()[first]}"


def require_same(*pairs: tuple[NDArray[Any], NDArray[Any]]) -> None:
    """Raise AssertionError if an array differs from what it should be, (got, want)."""
    for got, want in pairs:
        if (how := difference(got, want)) is not None:
            raise AssertionError(how)
