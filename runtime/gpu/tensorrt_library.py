"""TensorRT or TensorRT-RTX, whichever is installed. No other module imports either."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from dlf.runtime.errors import BackendFailedError, BackendMissingError
from dlf.runtime.gpu import driver

RTX = "tensorrt_rtx"
# Module -> its name; in the order in which they are tried. TensorRT runs on every NVIDIA GPU and tunes on the one it builds
# on; TensorRT-RTX on GeForce and RTX GPUs, and builds anywhere.
LIBRARIES = {"tensorrt": "TensorRT", RTX: "TensorRT-RTX"}
RTX_CAPABILITIES = {(7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1)}  # that TensorRT-RTX builds for


def install(capability: tuple[int, int] | None) -> str:
    """Return the command that installs a library for a GPU of this compute capability; of either library if that is None."""
    tensorrt, rtx = (f"pip install 'dlf[{extra}]'" for extra in ("tensorrt", "tensorrt-rtx"))
    if capability is None:
        return f"{tensorrt} (any NVIDIA GPU) or {rtx} (GeForce and RTX)"
    return rtx if capability in RTX_CAPABILITIES else tensorrt


def installed() -> str | None:
    """Return the name of the module that `load` would import; None if neither is installed."""
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
        here = driver.describe()
        raise BackendMissingError(f"Neither TensorRT nor TensorRT-RTX is installed; run: {install(here and here.capability)}.")
    try:
        return import_module(name)
    except Exception as error:
        raise BackendFailedError(f"{LIBRARIES[name]} cannot be imported ({type(error).__name__}: {error}).") from error


def is_rtx(library: ModuleType) -> bool:
    """Whether this is TensorRT-RTX."""
    return library.__name__ == RTX
