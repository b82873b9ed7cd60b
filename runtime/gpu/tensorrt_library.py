"""TensorRT or TensorRT-RTX, whichever is installed. No other module imports either."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from dlf.runtime.errors import BackendFailedError, BackendMissingError

RTX = "tensorrt_rtx"
# Module -> its name; in the order in which they are tried. TensorRT runs on every NVIDIA GPU and tunes on the one it builds
# on; TensorRT-RTX on GeForce and RTX GPUs, and builds anywhere.
LIBRARIES = {"tensorrt": "TensorRT", RTX: "TensorRT-RTX"}
INSTALL = "pip install 'dlf[tensorrt-rtx]', or TensorRT's own package, tensorrt"


def installed() -> str | None:
    """The name of the module that `load` would import; None where neither is installed."""
    return next((name for name in LIBRARIES if find_spec(name)), None)


@cache
def load() -> ModuleType:
    """Import the library. The two have the same interface where dlf uses them; `is_rtx` tells which it is.

    Raises:
        BackendMissingError: neither is installed.
        BackendFailedError: it is installed but cannot be imported.
    """
    name = installed()
    if name is None:
        raise BackendMissingError(f"Neither TensorRT nor TensorRT-RTX is installed; run: {INSTALL}.")
    try:
        return import_module(name)
    except Exception as error:
        raise BackendFailedError(f"{LIBRARIES[name]} cannot be imported ({type(error).__name__}: {error}).") from error


def is_rtx(library: ModuleType) -> bool:
    """Whether this is TensorRT-RTX."""
    return library.__name__ == RTX
