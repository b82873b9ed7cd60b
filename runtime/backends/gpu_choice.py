"""The choice of a device, and of a backend on an NVIDIA GPU.

A GPU is used where it is asked for, or where `dlf doctor` has passed on it (`dlf.runtime.backends.proven`). Otherwise nothing
here calls CUDA, which would make it useless in the children of a process that forks.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from dlf.runtime import backends, libdlf
from dlf.runtime.backends import Backend, proven
from dlf.runtime.errors import BackendFailedError, BackendMissingError, DLFError, InvalidArgumentError
from dlf.runtime.gpu import driver, tensorrt_library

if TYPE_CHECKING:
    from dlf.runtime.bundles.bundle import Bundle

ONNXRUNTIME, ONNXRUNTIME_TENSORRT, TENSORRT = "onnxruntime", "onnxruntime-tensorrt", "tensorrt"
# The backends on a GPU, the one that is expected to be the fastest first. ONNX Runtime is a backend on the CPU too.
ON_GPU = (TENSORRT, ONNXRUNTIME_TENSORRT, ONNXRUNTIME)
GPU_ONLY = (TENSORRT, ONNXRUNTIME_TENSORRT)
INSTALL_ONNXRUNTIME = "pip install 'dlf[onnxruntime-gpu]'"
INSTALL_ONNXRUNTIME_TENSORRT = "pip install 'dlf[onnxruntime-tensorrt]'"

_log = logging.getLogger(__name__)
_DEVICE = re.compile(r"cpu|cuda(?::(\d{1,4}))?")


@dataclass(frozen=True)
class Choice:
    """A backend on a GPU.

    Attributes:
        name: of the backend.
        ordinal: number of the GPU.
        why: the reason of the choice, in words.
    """

    name: str
    ordinal: int
    why: str

    @property
    def device(self) -> str:
        """The GPU, as `parse` takes it."""
        return f"cuda:{self.ordinal}"


def precisions() -> tuple[str, ...]:
    """The precisions of bundles, the one that a GPU is expected to run fastest first."""
    return tuple(precision for backend, precision in libdlf.backend_order(False) if backend == TENSORRT)


def parse(device: str | None) -> int | None:
    """Return the number of the GPU that a device names: 1 for "cuda:1", 0 for "cuda"; None for "cpu" and None.

    Raises InvalidArgumentError: it is another word.
    """
    if device is None:
        return None
    match = _DEVICE.fullmatch(device)
    if match is None:
        raise InvalidArgumentError(f"There is no device {device!r}; choose cpu, cuda, or cuda:1 for the second GPU.")
    return None if device == "cpu" else int(match[1] or 0)


def choose(name: str | None, device: str | None, found: Mapping[str, "Bundle"]) -> Choice | None:
    """Choose a backend on a GPU; None where the CPU is to be used.

    Args:
        name: the backend asked for; None for the best.
        device: "cpu", "cuda" or "cuda:N"; None for the CPU, unless the backend runs only on a GPU or has proved itself there.
        found: the bundles, by precision.

    Raises:
        InvalidArgumentError: there is no such device, or the backend does not run there.
        BackendMissingError: a GPU is asked for, and it or a backend for it is missing.
    """
    ordinal = parse(device)
    if device == "cpu":
        if name in GPU_ONLY:
            raise InvalidArgumentError(f"The backend {name} runs only on a GPU; choose the device cuda, or another backend.")
        return None
    if name is not None:
        if ordinal is None and name not in GPU_ONLY:
            return None
        if name not in ON_GPU:
            raise InvalidArgumentError(f"The backend {name} does not run on a GPU; choose from {', '.join(ON_GPU)}.")
        return Choice(name, ordinal or 0, "asked for")
    return _proven(ordinal or 0, found) or (None if ordinal is None else _usable(ordinal))


def _proven(ordinal: int, found: Mapping[str, "Bundle"]) -> Choice | None:
    """Choose the first backend whose self-test has passed with the bundle that it would use."""
    bundle = preferred(found)
    if bundle is None or not proven.is_anything(bundle) or (gpu := driver.describe(ordinal)) is None:
        return None
    for name in ON_GPU:
        if missing(name, ordinal) is None and proven.is_proven(bundle, name, gpu.name):
            return Choice(name, ordinal, f"dlf doctor has passed with it on {gpu.name}")
    return None


def preferred(found: Mapping[str, "Bundle"]) -> "Bundle | None":
    """Return the bundle that a GPU is expected to run fastest; None if there is none of a known precision."""
    return next((found[precision] for precision in precisions() if precision in found), None)


def warn_if_slow(bundle: "Bundle") -> None:
    """Log a warning if a GPU has to compute a bundle without tensor cores."""
    stages = bundle.manifest["stages"]
    if bundle.precision == "fp32" and not all(bundle.allows_tf32(stage) for stage in stages):
        _log.warning(
            "The bundle %s is in fp32 and has not passed in TF32: a GPU computes it without tensor cores, several times "
            "more slowly. Export it with --precision fp16.",
            bundle.path,
        )


def _usable(ordinal: int) -> Choice:
    lacks = {name: missing(name, ordinal) for name in ON_GPU}
    usable = [name for name, lack in lacks.items() if lack is None]
    if not usable:
        raise BackendMissingError(
            f"No backend for the GPU can be used: {'; '.join(f'{n}: {lack}' for n, lack in lacks.items())}."
        )
    return Choice(usable[0], ordinal, f"the first of {', '.join(usable)} on the GPU; dlf doctor has not tested it yet")


def missing(name: str, ordinal: int = 0) -> str | None:
    """Return what a backend of `ON_GPU` lacks on this GPU, and what to do, in words; None if it can be opened."""
    if name == TENSORRT and not any(find_spec(library) for library in tensorrt_library.LIBRARIES):
        here = driver.describe(ordinal)
        return f"neither TensorRT nor TensorRT-RTX is installed; run: {tensorrt_library.install(here and here.capability)}"
    if name != TENSORRT and not find_spec("onnxruntime"):
        install = INSTALL_ONNXRUNTIME_TENSORRT if name == ONNXRUNTIME_TENSORRT else INSTALL_ONNXRUNTIME
        return f"onnxruntime is not installed; run: {install}"
    if name == ONNXRUNTIME_TENSORRT and not find_spec("tensorrt"):  # which ONNX Runtime's packages do not bring
        return f"TensorRT is not installed; run: {INSTALL_ONNXRUNTIME_TENSORRT}"
    if (no_gpu := driver.missing(ordinal)) is not None:
        return f"{no_gpu}; install the driver, or use another backend"
    if name != TENSORRT:
        module = import_module(f"{backends.__name__}.onnxruntime_cuda")
        return module.missing_provider(tensorrt=name == ONNXRUNTIME_TENSORRT)  # type: ignore[no-any-return]
    return None


def open_backend(choice: Choice, stream: int | None = None) -> Backend:
    """Open the backend of a choice; `stream` is the handle of the CUDA stream that the caller works on.

    Raises:
        BackendMissingError: it is not installed, or there is no such GPU.
        BackendFailedError: it is installed but does not start.
    """
    if (lack := missing(choice.name, choice.ordinal)) is not None:
        raise BackendMissingError(f"The backend {choice.name} cannot be used: {lack}.")
    options = {"stream": stream, "ordinal": choice.ordinal}
    if choice.name == ONNXRUNTIME_TENSORRT:
        options["tensorrt"] = True
    module = TENSORRT if choice.name == TENSORRT else "onnxruntime_cuda"
    try:
        backend: Backend = import_module(f"{backends.__name__}.{module}").open_backend(None, **options)
    except DLFError:
        raise
    except Exception as error:
        raise BackendFailedError(f"The backend {choice.name} does not start ({type(error).__name__}: {error}).") from error
    return backend
