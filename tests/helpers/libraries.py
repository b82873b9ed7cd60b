"""When tests of TensorRT run: one rule for each library."""

from types import ModuleType

import pytest

from dlf.runtime.gpu import tensorrt_library

NO_RTX = "TensorRT-RTX is not installed"
# Of what the library that dlf chooses builds without a GPU.
needs_rtx = pytest.mark.skipif(
    tensorrt_library.installed() != tensorrt_library.RTX, reason="TensorRT-RTX is not what dlf would use"
)
# Of what runs in either library, such as an engine on a GPU.
needs_tensorrt = pytest.mark.skipif(tensorrt_library.installed() is None, reason="neither TensorRT nor TensorRT-RTX is installed")


def tensorrt_rtx() -> ModuleType:
    """TensorRT-RTX, for tests of its own interface; skips where it is not installed."""
    module: ModuleType = pytest.importorskip("tensorrt_rtx", reason=NO_RTX)
    return module
