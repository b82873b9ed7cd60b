"""What dlf needs of the CUDA driver API and pycuda does not have: whether there is a GPU, graphs, and streams of other libraries.

pycuda has neither graphs nor a way to name a stream that it did not make. The handles here are the integers that every CUDA
library gives out. Importing this module loads nothing; the first call loads the driver.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from dlf.runtime.errors import BackendFailedError

_pointer, _out, _uint = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint

# The driver's functions, by the names that its library exports: of some, a later version than the first.
SIGNATURES: dict[str, Sequence[Any]] = {
    "cuInit": (_uint,),
    "cuDeviceGetCount": (ctypes.POINTER(ctypes.c_int),),
    "cuDeviceGet": (ctypes.POINTER(ctypes.c_int), ctypes.c_int),
    "cuDeviceGetAttribute": (ctypes.POINTER(ctypes.c_int), ctypes.c_int, ctypes.c_int),
    "cuDeviceGetName": (ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    "cuGetErrorString": (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
    "cuEventCreate": (_out, _uint),
    "cuEventRecord": (_pointer, _pointer),
    "cuEventDestroy_v2": (_pointer,),
    "cuStreamWaitEvent": (_pointer, _pointer, _uint),
    "cuStreamBeginCapture_v2": (_pointer, ctypes.c_int),
    "cuStreamEndCapture": (_pointer, _out),
    "cuGraphInstantiateWithFlags": (_out, _pointer, ctypes.c_ulonglong),
    "cuGraphLaunch": (_pointer, _pointer),
    "cuGraphExecDestroy": (_pointer,),
    "cuGraphDestroy": (_pointer,),
}
COMPUTE_CAPABILITY = (75, 76)  # the attributes of its major and its minor number
EVENT_DISABLE_TIMING = 2
# Other threads, torch's for instance, may allocate meanwhile.
CAPTURE_THREAD_LOCAL = 1


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libcuda.so.1")
    for name, arguments in SIGNATURES.items():
        getattr(library, name).argtypes = arguments
    return library


def _call(name: str, *arguments: object) -> None:
    result = getattr(_library(), name)(*arguments)
    if result:
        text = ctypes.c_char_p()
        _library().cuGetErrorString(result, ctypes.byref(text))
        raise BackendFailedError(f"CUDA: {name} failed ({(text.value or b'unknown error').decode()}, {result}).")


def missing() -> str | None:
    """Why no GPU can be used; None if one can."""
    count = ctypes.c_int()
    try:
        _call("cuInit", 0)
        _call("cuDeviceGetCount", ctypes.byref(count))
    except OSError:
        return "NVIDIA's driver is not installed (no libcuda.so.1)"
    except BackendFailedError as error:
        return f"NVIDIA's driver offers no GPU ({error})"
    return None if count.value else "NVIDIA's driver finds no GPU"


def first_gpu() -> tuple[tuple[int, int], str] | None:
    """Compute capability and name of the first GPU, such as ((8, 9), "NVIDIA L4"); None if none can be used."""
    if missing() is not None:
        return None
    device, number, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    _call("cuDeviceGet", ctypes.byref(device), 0)
    capability = []
    for attribute in COMPUTE_CAPABILITY:
        _call("cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
        capability.append(number.value)
    _call("cuDeviceGetName", name, len(name), device)
    return (capability[0], capability[1]), name.value.decode()


def wait(stream: int, other: int) -> None:
    """Let all work put on `stream` from now on wait for all that is on the stream `other`; the host waits for nothing."""
    event = ctypes.c_void_p()
    _call("cuEventCreate", ctypes.byref(event), EVENT_DISABLE_TIMING)
    try:
        _call("cuEventRecord", event, other)
        _call("cuStreamWaitEvent", stream, event, 0)
    finally:
        _call("cuEventDestroy_v2", event)  # which takes effect once it has happened


class Graph:
    """Work of one stream, recorded by `capture`, to be launched at once."""

    def __init__(self, executable: ctypes.c_void_p) -> None:
        self._executable = executable

    def launch(self, stream: int) -> None:
        """Put the work on a stream."""
        _call("cuGraphLaunch", self._executable, stream)

    def close(self) -> None:
        """Release it. Launches that are under way are completed."""
        _call("cuGraphExecDestroy", self._executable)


def capture(stream: int, work: Callable[[], None]) -> Graph:
    """Record what `work` puts on a stream that is not the default one; nothing of it is executed."""
    graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
    _call("cuStreamBeginCapture_v2", stream, CAPTURE_THREAD_LOCAL)
    try:
        work()
    except BaseException:
        _library().cuStreamEndCapture(stream, ctypes.byref(graph))  # fails too if the work broke the recording
        if graph:
            _call("cuGraphDestroy", graph)
        raise
    _call("cuStreamEndCapture", stream, ctypes.byref(graph))
    try:
        _call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
    finally:
        _call("cuGraphDestroy", graph)
    return Graph(executable)
