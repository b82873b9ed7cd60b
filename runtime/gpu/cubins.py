"""The compiled GPU kernels that come with dlf: chooses those for a GPU, checks them, and packs their arguments.

The folder is described there. Nothing here needs a GPU: loading and launching is `dlf.runtime.gpu.device`'s.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlf import kernels
from dlf.kernels import launches
from dlf.runtime.errors import BackendFailedError, InvalidArgumentError

FOLDER = Path(kernels.__file__).with_name("cubins")
_REMEDY = "install dlf again"
# Every pointer but Triton's own two, which are null.
_ALIGNMENT = 16
_SCRATCH = ("global_scratch", "profile_scratch")


@dataclass(frozen=True)
class Cubin:
    """A compiled kernel.

    Attributes:
        data: the code, which the driver loads.
        symbol: the function's name in it.
        arguments: (name, type) of each, in order; `launches.ARGUMENT_TYPES` has the types.
        threads: of a block.
        shared: bytes of dynamic shared memory of a block.
    """

    data: bytes
    symbol: str
    arguments: tuple[tuple[str, str], ...]
    threads: int
    shared: int


def choose_gpu(capability: tuple[int, int], available: Iterable[str]) -> str | None:
    """Return the architecture, such as "sm_86", whose code runs on a GPU of this compute capability; None if none does.

    Code runs on GPUs of the same major and a higher minor version; from major version 9 on, what Triton compiles runs on one
    version only ("sm_90a").
    """
    major, minor = capability

    def runs(gpu: str) -> int | None:
        its_major, its_minor = divmod(int(gpu.removeprefix("sm_")), 10)
        fits = its_minor == minor if major >= 9 else its_minor <= minor
        return its_minor if its_major == major and fits else None

    fitting = {gpu: order for gpu in available if (order := runs(gpu)) is not None}
    return max(fitting, key=lambda gpu: fitting[gpu], default=None)


def read_cubins(capability: tuple[int, int], width: int | None, folder: Path = FOLDER) -> dict[str, Cubin]:
    """Read the kernels for a GPU, and return them by name.

    Args:
        capability: the GPU's compute capability.
        width: the prior's padded width, `launches.padded_width`; None to leave the prior's kernels out.
        folder: where they are.

    Raises:
        BackendFailedError: there are none for this GPU, or a file is missing or not what its hash says.
    """
    try:
        entries = json.loads((folder / "kernels.json").read_bytes())["kernels"]
        names = {name for name in launches.WARPS if width is not None or name not in launches.PRIOR}
        of_width = [entry for entry in entries if entry["constants"].get("d") in (None, width) and entry["kernel"] in names]
        by_gpu: dict[str, list[Any]] = {}
        for entry in of_width:
            by_gpu.setdefault(entry["gpu"], []).append(entry)
        complete = [gpu for gpu, found in by_gpu.items() if {entry["kernel"] for entry in found} == names]
        gpu = choose_gpu(capability, complete)
        if gpu is None:
            raise BackendFailedError(
                "There are no kernels for a GPU of compute capability {}.{}".format(*capability)
                + (f" and a prior of width {width}" if width else "")
                + f"; there are for {', '.join(complete)}."
            )
        return {entry["kernel"]: _cubin(folder, entry) for entry in by_gpu[gpu]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackendFailedError(f"The GPU kernels in {folder} cannot be read ({error}); {_REMEDY}.") from error


def _cubin(folder: Path, entry: Mapping[str, Any]) -> Cubin:
    data = (folder / entry["file"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ValueError(f"{entry['file']} is not what its SHA-256 in kernels.json says")
    arguments = tuple((str(name), str(kind)) for name, kind in entry["arguments"])
    return Cubin(data, str(entry["symbol"]), arguments, int(entry["threads"]), int(entry["shared"]))


def packed(cubin: Cubin, values: Mapping[str, Any]) -> list[np.generic]:
    """Return a launch's arguments in the kernel's order: int32 for numbers, uint64 for the addresses of arrays.

    Raises:
        InvalidArgumentError: one is missing or left over, a number does not fit, or an array has another type than the kernel
            reads, or an address that is no multiple of 16.
    """
    expected = [name for name, _ in cubin.arguments if name not in _SCRATCH]
    if sorted(expected) != sorted(values):
        raise InvalidArgumentError(f"{cubin.symbol} takes {', '.join(expected)}, not {', '.join(values)}.")
    return [np.uint64(0) if name in _SCRATCH else _packed(name, kind, values[name]) for name, kind in cubin.arguments]


_DTYPES = {"u8": "u1", "i8": "i1", "u16": "u2", "i16": "i2", "i32": "i4", "i64": "i8", "fp32": "f4"}


def _packed(name: str, kind: str, value: Any) -> np.generic:
    if not kind.startswith("*"):
        if not 0 <= value < 1 << 31:
            raise InvalidArgumentError(f"{name} is {value}, which is no size or number of a kernel's.")
        return np.int32(value)
    if value.dtype != np.dtype(_DTYPES[kind[1:]]):
        raise InvalidArgumentError(f"{name} is an array of {value.dtype}, not {kind[1:]}.")
    if value.address % _ALIGNMENT:
        raise InvalidArgumentError(f"{name} is at {value.address:#x}, not at a multiple of {_ALIGNMENT}.")
    return np.uint64(value.address)
