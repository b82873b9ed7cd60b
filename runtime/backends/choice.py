"""The choice of a backend: which are installed, which runs a model fastest on this machine, and opening it."""

from collections.abc import Collection, Sequence
from importlib import import_module
from importlib.util import find_spec

from dlf.runtime import backends
from dlf.runtime.backends import Backend, processor
from dlf.runtime.errors import BackendFailedError, BackendMissingError, DLFError, InvalidArgumentError
from dlf.runtime.gpu import driver, tensorrt_library

# Module in `dlf.runtime.backends` -> what to install.
# Each is named after the library it imports, which for the last may be TensorRT-RTX.
GPU = "tensorrt"
INSTALL = {
    "openvino": "pip install 'dlf[cpu]'",
    "onnxruntime": "pip install 'dlf[onnxruntime]', or 'dlf[onnxruntime-gpu]' for an NVIDIA GPU",
    GPU: "pip install 'dlf[tensorrt]'",
}

# Backends with the precisions of bundles, the fastest first for a model of the released size (docs/bench.md has the figures): on
# processors with int8 dot products, and on those without.
_WITH_DOT_PRODUCTS = (
    ("openvino", "int8"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "fp16"),
    ("onnxruntime", "fp32"),
    ("onnxruntime", "fp16"),
)
_WITHOUT_DOT_PRODUCTS = (
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "fp16"),
    ("openvino", "int8"),
    ("onnxruntime", "fp32"),
    ("onnxruntime", "fp16"),
)
# Last, since dlf's code for it has not run on a GPU yet: it is for those who ask for it or have nothing else. Its order is an
# expectation.
_ON_GPU = ((GPU, "fp16"), (GPU, "int8"), (GPU, "fp32"))


def installed() -> list[str]:
    """The names of the backends that have what they need, in the order of `INSTALL`."""
    return [name for name in INSTALL if missing(name) is None]


def missing(name: str) -> str | None:
    """What a backend of `INSTALL` lacks here, and what to do, in words; None if it can be opened."""
    if name != GPU:
        return None if find_spec(name) else f"{name} is not installed; run: {INSTALL[name]}"
    if not any(find_spec(library) for library in tensorrt_library.LIBRARIES):
        here = driver.describe()
        return f"neither TensorRT nor TensorRT-RTX is installed; run: {tensorrt_library.install(here and here.capability)}"
    no_gpu = driver.missing()
    return no_gpu and f"{no_gpu}; install the driver, or use another backend"


def order() -> tuple[tuple[str, str], ...]:
    """All backends with all precisions of bundles, the fastest on this machine first."""
    return (_WITH_DOT_PRODUCTS if processor.has_int8_dot_products() else _WITHOUT_DOT_PRODUCTS) + _ON_GPU


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
    available = [name for name in INSTALL if name != GPU and missing(name) is None] or installed()
    if not available:
        raise BackendMissingError(f"No backend is installed; run: {' or: '.join(INSTALL.values())}.")
    best = next((backend for backend, precision in order() if backend in available and precision in there), available[0])
    processors = "with" if processor.has_int8_dot_products() else "without"
    return best, f"the fastest of {', '.join(available)} on a processor {processors} int8 dot products"


def _require(name: str) -> None:
    """Refuse a backend that there is not, or that lacks something."""
    if name not in INSTALL:
        raise InvalidArgumentError(f"There is no backend {name!r}; choose from {', '.join(INSTALL)}.")
    if (lack := missing(name)) is not None:
        raise BackendMissingError(f"The backend {name} cannot be used: {lack}.")


def open_backend(name: str, threads: int | None, stream: int | None = None) -> Backend:
    """Open a backend.

    Args:
        name: the backend.
        threads: CPU threads; None for as many as the library chooses. A GPU has no use for them.
        stream: handle of the CUDA stream that the caller works on; None for one of the backend's own.

    Raises:
        InvalidArgumentError: there is no backend of that name, `threads` is below 1, or a stream is given to one on the CPU.
        BackendMissingError: it is not installed.
        BackendFailedError: it is installed but does not start.
    """
    if threads is not None and threads < 1:
        raise InvalidArgumentError(f"threads is {threads}; it must be at least 1.")
    _require(name)
    if stream is not None and name != GPU:
        raise InvalidArgumentError(f"The backend {name} runs on the CPU and takes no CUDA stream; leave it out or use {GPU}.")
    options = {} if stream is None else {"stream": stream}
    try:
        backend: Backend = import_module(f"{backends.__name__}.{name}").open_backend(threads, **options)
    except DLFError:
        raise
    except Exception as error:
        raise BackendFailedError(f"The backend {name} does not start ({type(error).__name__}: {error}).") from error
    return backend
