"""Importing the backends' libraries without their telemetry, which would write identifiers below HOME and report to a host.

OpenVINO has it in a package of its own, openvino_telemetry. Where that is not installed OpenVINO takes a stub that does
nothing; so it does here. ONNX Runtime heeds a variable of the environment when it is loaded.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OPENVINO, _ONNXRUNTIME = "openvino_telemetry", "ORT_DISABLE_TELEMETRY"


@contextmanager
def off() -> Iterator[None]:
    """Import openvino or onnxruntime in this context. A library that the application has imported before is left as it is."""
    os.environ.setdefault(_ONNXRUNTIME, "1")  # for the processes that this one starts too
    before = sys.modules.get(_OPENVINO)
    sys.modules[_OPENVINO] = None  # type: ignore[assignment]  # Python's way to say that it is not installed
    try:
        yield
    finally:
        del sys.modules[_OPENVINO]
        if before is not None:
            sys.modules[_OPENVINO] = before
