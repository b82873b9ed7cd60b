"""The choice of a backend: which are installed, which runs a model fastest on this machine, and opening it."""

from collections.abc import Collection, Sequence
from importlib import import_module
from importlib.util import find_spec

from dlf.runtime import backends, libdlf
from dlf.runtime.backends import Backend, gpu_choice
from dlf.runtime.errors import BackendFailedError, BackendMissingError, DLFError, InvalidArgumentError

# Backend -> what to install. On the CPU it is the module of that name in `dlf.runtime.backends`, which imports the library that
# is called so; on a GPU see `gpu_choice`.
INSTALL = {
    "openvino": "pip install 'dlf[cpu]'",
    "onnxruntime": "pip install 'dlf[onnxruntime]', or 'dlf[onnxruntime-gpu]' for an NVIDIA GPU",
    gpu_choice.TENSORRT: "pip install 'dlf[tensorrt]'",
    gpu_choice.ONNXRUNTIME_TENSORRT: gpu_choice.INSTALL_ONNXRUNTIME_TENSORRT,
}


def installed() -> list[str]:
    """The names of the backends that have what they need, in the order of `INSTALL`."""
    return [name for name in INSTALL if missing(name) is None]


def missing(name: str) -> str | None:
    """What a backend of `INSTALL` lacks here, and what to do, in words; None if it can be opened."""
    if name in gpu_choice.GPU_ONLY:
        return gpu_choice.missing(name)
    return None if find_spec(name) else f"{name} is not installed; run: {INSTALL[name]}"


def order() -> tuple[tuple[str, str], ...]:
    """All backends with all precisions of bundles, the fastest on this machine first."""
    return libdlf.backend_order(libdlf.has_int8_dot_products())


def precisions(name: str) -> Sequence[str]:
    """The precisions of bundles, that first which a backend runs fastest on this machine."""
    return [precision for backend, precision in order() if backend == name]


def choose(name: str | None, there: Collection[str]) -> tuple[str, str]:
    """The backend to open when `name`, or by None the best, is asked for, and why, in words.

    Args:
        name: the backend; None for the one that runs a bundle in one of these precisions fastest.
        there: the precisions in which there are bundles.

    Raises:
        InvalidArgumentError: there is no backend of that name.
        BackendMissingError: it is not installed, or none is.
    """
    if name is not None:
        _require(name)
        return name, "asked for"
    # Where there is a backend for the CPU, a GPU is not asked for: that would make CUDA useless in forked children.
    available = [name for name in INSTALL if name not in gpu_choice.GPU_ONLY and missing(name) is None] or installed()
    if not available:
        raise BackendMissingError(f"No backend is installed; run: {' or: '.join(INSTALL.values())}.")
    best = next((backend for backend, precision in order() if backend in available and precision in there), available[0])
    processors = "with" if libdlf.has_int8_dot_products() else "without"
    return best, f"the fastest of {', '.join(available)} on a processor {processors} int8 dot products"


def _require_known(name: str) -> None:
    if name not in INSTALL:
        raise InvalidArgumentError(f"There is no backend {name!r}; choose from {', '.join(INSTALL)}.")


def _require(name: str) -> None:
    """Refuse a backend that there is not, or that lacks something."""
    _require_known(name)
    if (lack := missing(name)) is not None:
        raise BackendMissingError(f"The backend {name} cannot be used: {lack}.")


def open_backend(name: str, threads: int | None, stream: int | None = None, device: str | None = None) -> Backend:
    """Open a backend.

    Args:
        name: the backend.
        threads: CPU threads; None for as many as the library chooses. A GPU has no use for them.
        stream: handle of the CUDA stream that the caller works on; None for one of the backend's own.
        device: "cpu", "cuda", or "cuda:N" for the GPU of that number; None for the one that the backend is made for.

    Raises:
        InvalidArgumentError: there is no backend or device of that name, the backend does not run on the device, `threads` is
            below 1, or a stream is given to a backend on the CPU.
        BackendMissingError: it is not installed.
        BackendFailedError: it is installed but does not start.
    """
    if threads is not None and threads < 1:
        raise InvalidArgumentError(f"threads is {threads}; it must be at least 1.")
    _require_known(name)
    if (on_gpu := gpu_choice.choose(name, device, {})) is not None:
        return gpu_choice.open_backend(on_gpu, stream)
    _require(name)
    if stream is not None:
        raise InvalidArgumentError(f"The backend {name} runs on the CPU and takes no CUDA stream; leave it out or use a GPU.")
    try:
        backend: Backend = import_module(f"{backends.__name__}.{name}").open_backend(threads)
    except DLFError:
        raise
    except Exception as error:
        raise BackendFailedError(f"The backend {name} does not start ({type(error).__name__}: {error}).") from error
    return backend
