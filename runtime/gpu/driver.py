"""The CUDA driver API, as far as dlf needs it, by ctypes: what GPUs there are, a context, streams, memory, kernels, graphs.

Handles and addresses are the integers that every CUDA library gives out. Importing this module loads nothing; the first call
loads the driver. A call that CUDA refuses raises BackendFailedError, or OutOfMemoryError where memory is missing.

A process that calls `cuInit` and then forks cannot use CUDA in its children. `missing`, `describe` and `Context` call it; they
are called only where the caller asks for a GPU, or where one has proved itself before (`dlf.runtime.backends.choice`).
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlf.runtime.errors import BackendFailedError, BackendMissingError, OutOfMemoryError

_pointer, _out = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
_int, _int_out, _uint, _size = ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.c_uint, ctypes.c_size_t

# The driver's functions, by the names that its library exports: of some, a later version than the first. An address on the GPU
# is a 64-bit integer, as a pointer is.
SIGNATURES: dict[str, Sequence[Any]] = {
    "cuInit": (_uint,),
    "cuDriverGetVersion": (_int_out,),
    "cuGetErrorString": (_int, ctypes.POINTER(ctypes.c_char_p)),
    "cuDeviceGetCount": (_int_out,),
    "cuDeviceGet": (_int_out, _int),
    "cuDeviceGetAttribute": (_int_out, _int, _int),
    "cuDeviceGetName": (ctypes.c_char_p, _int, _int),
    "cuDevicePrimaryCtxGetState": (_int, ctypes.POINTER(_uint), _int_out),
    "cuDevicePrimaryCtxRetain": (_out, _int),
    "cuDevicePrimaryCtxRelease_v2": (_int,),
    "cuCtxGetCurrent": (_out,),
    "cuCtxGetDevice": (_int_out,),
    "cuCtxPushCurrent_v2": (_pointer,),
    "cuCtxPopCurrent_v2": (_out,),
    "cuCtxSynchronize": (),
    "cuStreamCreate": (_out, _uint),
    "cuStreamDestroy_v2": (_pointer,),
    "cuStreamSynchronize": (_pointer,),
    "cuStreamWaitEvent": (_pointer, _pointer, _uint),
    "cuEventCreate": (_out, _uint),
    "cuEventRecord": (_pointer, _pointer),
    "cuEventDestroy_v2": (_pointer,),
    "cuMemAlloc_v2": (_out, _size),
    "cuMemFree_v2": (_pointer,),
    "cuMemGetInfo_v2": (ctypes.POINTER(_size), ctypes.POINTER(_size)),
    "cuPointerGetAttribute": (_int_out, _int, _pointer),
    "cuMemHostAlloc": (_out, _size, _uint),
    "cuMemFreeHost": (_pointer,),
    "cuMemcpyHtoDAsync_v2": (_pointer, _pointer, _size, _pointer),
    "cuMemcpyDtoHAsync_v2": (_pointer, _pointer, _size, _pointer),
    "cuMemcpyDtoDAsync_v2": (_pointer, _pointer, _size, _pointer),
    "cuMemsetD8Async": (_pointer, ctypes.c_ubyte, _size, _pointer),
    "cuModuleLoadData": (_out, ctypes.c_char_p),
    "cuModuleUnload": (_pointer,),
    "cuModuleGetFunction": (_out, _pointer, ctypes.c_char_p),
    "cuFuncSetAttribute": (_pointer, _int, _int),
    "cuLaunchKernel": (_pointer, *(_uint,) * 7, _pointer, _out, _out),
    "cuStreamBeginCapture_v2": (_pointer, _int),
    "cuStreamEndCapture": (_pointer, _out),
    "cuGraphInstantiateWithFlags": (_out, _pointer, ctypes.c_ulonglong),
    "cuGraphLaunch": (_pointer, _pointer),
    "cuGraphExecDestroy": (_pointer,),
    "cuGraphDestroy": (_pointer,),
}
OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
COMPUTE_CAPABILITY = (75, 76)  # the attributes of its major and its minor number
DEVICE_ORDINAL = 9  # CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
EVENT_DISABLE_TIMING = 2
STREAM_NON_BLOCKING = 1  # the stream does not wait for the default one, which could not be recorded
MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
# Other threads, torch's for instance, may allocate while this one records.
CAPTURE_THREAD_LOCAL = 1

KERNEL_VERSION = Path("/sys/module/nvidia/version")
_NOT_INSTALLED = "NVIDIA's driver is not installed (no libcuda.so.1)"


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendMissingError(f"{_NOT_INSTALLED}.") from error
    for name, arguments in SIGNATURES.items():
        getattr(library, name).argtypes = arguments
    return library


def _call(name: str, *arguments: object) -> None:
    result = getattr(_library(), name)(*arguments)
    if result:
        text = ctypes.c_char_p()
        _library().cuGetErrorString(result, ctypes.byref(text))
        kind = OutOfMemoryError if result == OUT_OF_MEMORY else BackendFailedError
        raise kind(f"CUDA: {name} failed ({(text.value or b'unknown error').decode()}, {result}).")


def _get(name: str, *arguments: object) -> int:
    """Call a function whose first argument receives a handle or an address, and return that."""
    found = ctypes.c_void_p()
    _call(name, ctypes.byref(found), *arguments)
    return found.value or 0


def _number(name: str, *arguments: object) -> int:
    """Call a function whose first argument receives a number, and return that."""
    found = ctypes.c_int()
    _call(name, ctypes.byref(found), *arguments)
    return found.value


# --------------------------------------------------------------------------------------------------------------- the GPUs


class GPU(NamedTuple):
    """A GPU as the driver describes it: compute capability, such as (8, 9), and name, such as "NVIDIA L4"."""

    capability: tuple[int, int]
    name: str


def missing(ordinal: int = 0) -> str | None:
    """Why the GPU of this number cannot be used; None if it can."""
    try:
        _call("cuInit", 0)
        count = _number("cuDeviceGetCount")
    except BackendMissingError:
        return _NOT_INSTALLED
    except BackendFailedError as error:
        return f"NVIDIA's driver offers no GPU ({error})"
    if not count:
        return "NVIDIA's driver finds no GPU"
    return None if ordinal < count else f"NVIDIA's driver finds no GPU {ordinal}, only {count}, counted from 0"


def describe(ordinal: int = 0) -> GPU | None:
    """Describe the GPU of this number; None if it cannot be used."""
    if missing(ordinal) is not None:
        return None
    device, name = _number("cuDeviceGet", ordinal), ctypes.create_string_buffer(256)
    major, minor = (_number("cuDeviceGetAttribute", attribute, device) for attribute in COMPUTE_CAPABILITY)
    _call("cuDeviceGetName", name, len(name), device)
    return GPU((major, minor), name.value.decode())


def version() -> str:
    """Return the CUDA version that the driver supports, such as "13.1"."""
    number = _number("cuDriverGetVersion")
    return f"{number // 1000}.{number % 1000 // 10}"


def identity() -> str:
    """Return the CUDA version that the driver supports, and the driver's own version where the system tells it."""
    try:
        return f"CUDA {version()}, driver {KERNEL_VERSION.read_text(encoding='ascii').strip()}"
    except OSError:  # in WSL
        return f"CUDA {version()}"


# ------------------------------------------------------------------------------------------------------------ its context


class Context:
    """A context on a GPU. It is current in a thread within `with context:`, which may be nested."""

    def __init__(self, ordinal: int, primary: bool = False) -> None:
        """Take the thread's current context if it is on this GPU, otherwise the GPU's primary context, which torch uses too.

        With `primary`, take the primary one in any case.

        A current context that is not the primary one, such as pycuda.autoinit makes, belongs to the application, which has to
        keep it until this object is released.

        Raises BackendMissingError: there is no such GPU.
        """
        if (why := missing(ordinal)) is not None:
            raise BackendMissingError(f"{why}.")
        self._device = _number("cuDeviceGet", ordinal)
        self.handle = 0 if primary else self._application_context()
        self._retained = not self.handle
        if self._retained:
            self.handle = _get("cuDevicePrimaryCtxRetain", self._device)

    def _application_context(self) -> int:
        """Return the current context if it is on this GPU and not its primary one; otherwise 0."""
        current = _get("cuCtxGetCurrent")
        if not current or _number("cuCtxGetDevice") != self._device:
            return 0
        flags, active = ctypes.c_uint(), ctypes.c_int()
        _call("cuDevicePrimaryCtxGetState", self._device, ctypes.byref(flags), ctypes.byref(active))
        if not active.value:
            return current
        primary = _get("cuDevicePrimaryCtxRetain", self._device)
        _call("cuDevicePrimaryCtxRelease_v2", self._device)
        return 0 if primary == current else current

    def release(self) -> None:
        """Give a primary context back. Where nobody else uses it, everything in it is freed."""
        if self._retained:
            self._retained = False
            _call("cuDevicePrimaryCtxRelease_v2", self._device)

    def __enter__(self) -> "Context":
        _call("cuCtxPushCurrent_v2", self.handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        _get("cuCtxPopCurrent_v2")


def synchronise_context() -> None:
    """Wait for all work that any library has put into the current context."""
    _call("cuCtxSynchronize")


# ---------------------------------------------------------------------------------------------------------------- streams


def create_stream() -> int:
    """Create a stream that does not wait for the default one."""
    return _get("cuStreamCreate", STREAM_NON_BLOCKING)


def destroy_stream(stream: int) -> None:
    """Destroy a stream once its work is done."""
    _call("cuStreamDestroy_v2", stream)


def synchronise(stream: int) -> None:
    """Wait for all work that is on a stream."""
    _call("cuStreamSynchronize", stream)


def wait(stream: int, other: int) -> None:
    """Let all work put on `stream` from now on wait for all that is on the stream `other`; the host waits for nothing."""
    event = _get("cuEventCreate", EVENT_DISABLE_TIMING)
    try:
        _call("cuEventRecord", event, other)
        _call("cuStreamWaitEvent", stream, event, 0)
    finally:
        _call("cuEventDestroy_v2", event)  # which takes effect once it has happened


# ----------------------------------------------------------------------------------------------------------------- memory


def allocate(nbytes: int) -> int:
    """Return the address of new memory on the GPU. Raises OutOfMemoryError."""
    return _get("cuMemAlloc_v2", nbytes)


def free(address: int) -> None:
    """Free memory on the GPU. Waits for all work on the GPU."""
    _call("cuMemFree_v2", address)


def memory_info() -> tuple[int, int]:
    """Return the free and the total bytes of the GPU's memory."""
    free_bytes, total = ctypes.c_size_t(), ctypes.c_size_t()
    _call("cuMemGetInfo_v2", ctypes.byref(free_bytes), ctypes.byref(total))
    return free_bytes.value, total.value


def ordinal_of(address: int) -> int:
    """Return the number of the GPU whose memory an address is in."""
    return _number("cuPointerGetAttribute", DEVICE_ORDINAL, address)


def allocate_pinned(nbytes: int) -> NDArray[np.uint8]:
    """Return memory on the host that the GPU copies from and to by itself. It is kept until `free_pinned`."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(_get("cuMemHostAlloc", nbytes, 0)))


def free_pinned(memory: NDArray[np.uint8]) -> None:
    """Free what `allocate_pinned` returned."""
    _call("cuMemFreeHost", memory.ctypes.data)


def copy_in(to: int, source: NDArray[Any], stream: int) -> None:
    """Put a copy from the host to the GPU on a stream."""
    _call("cuMemcpyHtoDAsync_v2", to, source.ctypes.data, source.nbytes, stream)


def copy_out(to: NDArray[Any], source: int, stream: int) -> None:
    """Put a copy from the GPU to the host on a stream."""
    _call("cuMemcpyDtoHAsync_v2", to.ctypes.data, source, to.nbytes, stream)


def copy(to: int, source: int, nbytes: int, stream: int) -> None:
    """Put a copy within the GPU on a stream."""
    _call("cuMemcpyDtoDAsync_v2", to, source, nbytes, stream)


def zero(address: int, nbytes: int, stream: int) -> None:
    """Put the zeroing of memory on a stream."""
    _call("cuMemsetD8Async", address, 0, nbytes, stream)


# ---------------------------------------------------------------------------------------------------------------- kernels


def load_module(cubin: bytes) -> int:
    """Load a cubin into the current context, and return its handle."""
    return _get("cuModuleLoadData", cubin)


def unload_module(module: int) -> None:
    """Unload what `load_module` loaded."""
    _call("cuModuleUnload", module)


def get_function(module: int, symbol: str) -> int:
    """Return the handle of a module's kernel."""
    return _get("cuModuleGetFunction", module, symbol.encode())


def allow_shared(function: int, nbytes: int) -> None:
    """Allow a kernel more dynamic shared memory than the usual 48 kB."""
    _call("cuFuncSetAttribute", function, MAX_DYNAMIC_SHARED, nbytes)


def launch(function: int, grid: tuple[int, int], threads: int, shared: int, stream: int, arguments: Sequence[np.generic]) -> None:
    """Put a kernel on a stream: a grid of (x, y) blocks, each of `threads` threads and `shared` bytes of dynamic memory.

    Arguments are int32 numbers of at least 0, or uint64 addresses.
    """
    # Of a number in an eight-byte slot, the kernel reads the lower four bytes.
    slots = np.array([int(argument) for argument in arguments], "<u8")
    addresses = (ctypes.c_void_p * len(slots))(*range(slots.ctypes.data, slots.ctypes.data + slots.nbytes, 8))
    _call("cuLaunchKernel", function, *grid, 1, threads, 1, 1, shared, stream, addresses, None)


# ----------------------------------------------------------------------------------------------------------------- graphs


class Graph:
    """Work of one stream, recorded by `capture`, to be launched at once."""

    def __init__(self, executable: int) -> None:
        self._executable = executable

    def launch(self, stream: int) -> None:
        """Put the work on a stream."""
        _call("cuGraphLaunch", self._executable, stream)

    def close(self) -> None:
        """Release it. Launches that are under way are completed."""
        _call("cuGraphExecDestroy", self._executable)


def capture(stream: int, work: Callable[[], None]) -> Graph:
    """Record what `work` puts on a stream that is not the default one; nothing of it is executed."""
    graph = ctypes.c_void_p()
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
        return Graph(_get("cuGraphInstantiateWithFlags", graph, 0))
    finally:
        _call("cuGraphDestroy", graph)
