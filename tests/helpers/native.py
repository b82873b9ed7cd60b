"""The C functions of models and contexts (`dlf.h`), called from Python by ctypes."""

import ctypes
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlf.runtime import errors, libdlf
from dlf.runtime.libdlf_abi import FileInfo, Limits, Sized

MAX_RANK, MAX_OUTPUTS = 8, 8


class Tensor(Structure):
    _fields_ = (("name", c_char_p), ("data", c_void_p), ("rank", c_size_t), ("shape", c_size_t * MAX_RANK))

    def array(self) -> NDArray[np.float32]:
        shape = tuple(self.shape[: self.rank])
        raw = ctypes.string_at(self.data, 4 * int(np.prod(shape)))
        return np.frombuffer(raw, np.float32).reshape(shape)


Load = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_char_p, POINTER(c_void_p), c_void_p, c_size_t)
Run = ctypes.CFUNCTYPE(
    c_int,
    c_void_p,
    c_void_p,
    POINTER(Tensor),
    c_size_t,
    POINTER(Tensor),
    POINTER(c_size_t),
    POINTER(c_void_p),
    c_void_p,
    c_size_t,
)
Release = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_void_p)
Unload = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)
Log = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p)
Allocate = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_size_t, c_size_t)
Free = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_size_t)


class BackendTable(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        *((name, c_char_p) for name in ("name", "device", "version")),
        ("user", c_void_p),
        ("load", Load),
        ("run", Run),
        ("release", Release),
        ("unload", Unload),
        ("whole_generator", c_uint32),
    )


class ModelOptions(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("threads", c_uint32),
        ("low_memory", c_uint32),
        ("backend", POINTER(BackendTable)),
        ("openvino", c_char_p),
        ("tensorrt", c_char_p),
        ("file", POINTER(FileInfo)),
    )


class ModelInfo(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("fingerprint", c_uint32),
        *((name, c_char_p) for name in ("precision", "backend", "backend_device", "backend_version")),
    )


class Allocator(Sized):
    _fields_ = (("struct_size", c_size_t), ("user", c_void_p), ("allocate", Allocate), ("release", Free))


class ContextOptions(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        ("limits", POINTER(Limits)),
        ("allocator", POINTER(Allocator)),
        ("max_memory", c_uint64),
        ("memory_limit", c_uint64),
        ("preview", c_uint32),
    )


class EncodeOptions(Sized):
    _fields_ = (("struct_size", c_size_t), ("no_checksum", c_uint32))


class Image(Sized):
    _fields_ = (
        ("struct_size", c_size_t),
        *((name, c_uint32) for name in ("width", "height", "format")),
        ("stride", c_size_t),
        ("pixels", c_void_p),
    )


def library() -> ctypes.CDLL:
    """libdlf, a handle of its own, so that nothing here changes what the binding declares."""
    lib = ctypes.CDLL(str(libdlf.library_path()))
    for name in ("dlf_model_message", "dlf_context_message", "dlf_result_string"):
        getattr(lib, name).restype = c_char_p
    lib.dlf_encode_bound.restype = c_size_t
    lib.dlf_model_entropy.restype = c_void_p
    for name in ("dlf_model_free", "dlf_context_free", "dlf_set_log", "dlf_free"):
        getattr(lib, name).restype = None
    return lib


LIB = library()


def check(result: int, message: bytes) -> None:
    """Raise a refusal as Python's own codec does."""
    if result:
        raise errors.BY_CODE[result](message.decode())


class Model:
    """A dlf_model; refusals are raised as the classes of `dlf.runtime.errors`, with the library's message."""

    def __init__(self, folder: Path | str, **options: Any) -> None:
        self.handle = c_void_p()
        self._options = ModelOptions(**options)
        result = LIB.dlf_model_open(str(folder).encode(), byref(self._options), byref(self.handle))
        message = LIB.dlf_model_message(self.handle)
        if result:
            LIB.dlf_model_free(self.handle)
            self.handle = c_void_p()
        check(result, message)

    def info(self) -> dict[str, Any]:
        info = ModelInfo()
        check(LIB.dlf_model_get_info(self.handle, byref(info)), b"no info")
        return {name: getattr(info, name) for name, _ in ModelInfo._fields_[1:]}

    def close(self) -> None:
        LIB.dlf_model_free(self.handle)
        self.handle = c_void_p()

    def __del__(self) -> None:
        self.close()


class Context:
    """A dlf_context."""

    def __init__(self, model: Model, **options: Any) -> None:
        self.model, self.handle = model, c_void_p()
        result = LIB.dlf_context_create(model.handle, byref(ContextOptions(**options)), byref(self.handle))
        check(result, b"no context")

    def prepare(self, what: int) -> None:
        self._check(LIB.dlf_context_prepare(self.handle, c_uint32(what)))

    def encode(self, pixels: NDArray[np.uint8], checksum: bool = True) -> bytes:
        out, size = c_void_p(), c_size_t()
        options = EncodeOptions(no_checksum=not checksum)
        self._check(LIB.dlf_encode(self.handle, byref(image_of(pixels)), byref(options), byref(out), byref(size)))
        data = ctypes.string_at(out, size.value)
        LIB.dlf_free(out)
        return data

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        image = Image()
        self._check(LIB.dlf_decode(self.handle, data, c_size_t(len(data)), byref(image)))
        raw = ctypes.string_at(image.pixels, image.stride * image.height)
        LIB.dlf_free(c_void_p(image.pixels))
        return np.frombuffer(raw, np.uint8).reshape(image.height, image.width, 3)

    def close(self) -> None:
        LIB.dlf_context_free(self.handle)
        self.handle = c_void_p()

    def _check(self, result: int) -> None:
        check(result, LIB.dlf_context_message(self.handle))

    def __del__(self) -> None:
        self.close()


def image_of(pixels: NDArray[np.uint8]) -> Image:
    """An image of (H, W, 3) or (H, W) pixels, whose rows may be apart; they must outlive it."""
    height, width = pixels.shape[:2]
    return Image(width=width, height=height, format=pixels.ndim == 2, stride=pixels.strides[0], pixels=pixels.ctypes.data)


Arrays = dict[str, NDArray[np.float32]]


class Backend:
    """An application's backend, of Python functions; it keeps count of what is loaded and running.

    Args:
        load: gives a stage, by its name and file: a function of named arrays that gives named arrays. Both may raise errors of
            `dlf.runtime.errors`.
        whole_generator: whether it is to run the generator's whole graph.
    """

    def __init__(self, load: Callable[[str, Path], Callable[[Arrays], Arrays]], *, whole_generator: bool = False) -> None:
        self.load = load
        self.loaded: dict[int, Callable[[Arrays], Arrays]] = {}
        self.names: list[str] = []  # of all that was loaded
        self.runs: dict[int, list[Any]] = {}  # what is running -> what its outputs lie in
        self._numbers = itertools.count(1)
        self.table = BackendTable(
            name=b"own",
            load=Load(self._load),
            run=Run(self._run),
            release=Release(self._release),
            unload=Unload(self._unload),
            whole_generator=whole_generator,
        )

    def pointer(self) -> Any:
        return ctypes.pointer(self.table)

    def _load(self, user: int, bundle: int, stage: bytes, loaded: Any, message: int, message_size: int) -> int:
        file = c_char_p()
        if result := LIB.dlf_bundle_stage(c_void_p(bundle), stage, byref(file)):
            return int(result)
        assert file.value is not None
        try:
            run = self.load(stage.decode(), Path(file.value.decode()))
        except errors.DLFError as error:
            return _refuse(error, message, message_size)
        self.names.append(stage.decode())
        loaded[0] = next(self._numbers)
        self.loaded[loaded[0]] = run
        return 0

    def _run(self, user: int, loaded: int, inputs: Any, count: int, outputs: Any, output_count: Any, *rest: Any) -> int:
        run, message, message_size = rest
        try:
            results = self.loaded[loaded]({inputs[i].name.decode(): inputs[i].array() for i in range(count)})
        except errors.DLFError as error:
            return _refuse(error, message, message_size)
        kept: list[Any] = []
        for i, (name, values) in enumerate(results.items()):
            array, text = np.ascontiguousarray(values, np.float32), name.encode()
            kept += [array, text]
            outputs[i] = Tensor(text, array.ctypes.data, array.ndim, (c_size_t * MAX_RANK)(*array.shape))
        output_count[0] = len(results)
        run[0] = next(self._numbers)
        self.runs[run[0]] = kept
        return 0

    def _release(self, user: int, loaded: int, run: int) -> None:
        assert loaded in self.loaded
        del self.runs[run]

    def _unload(self, user: int, loaded: int) -> None:
        del self.loaded[loaded]


def _refuse(error: errors.DLFError, message: int, size: int) -> int:
    text = str(error).encode()[: size - 1] + b"\0"
    ctypes.memmove(message, text, len(text))
    return error.code


@contextmanager
def logged() -> Iterator[list[tuple[int, str]]]:
    """What the library logs while the block runs, as (level, line)."""
    lines: list[tuple[int, str]] = []
    function = Log(lambda user, level, line: lines.append((level, line.decode())))
    LIB.dlf_set_log(function, None)
    try:
        yield lines
    finally:
        LIB.dlf_set_log(Log(), None)


def openvino_library() -> Path:
    """The folder of OpenVINO's C library in the wheel from PyPI."""
    import openvino

    return Path(openvino.__file__).parent / "libs"


def check_manifest(data: bytes, size: int = 256) -> tuple[int, str]:
    message = ctypes.create_string_buffer(size)
    result: int = LIB.dlf_manifest_check(data, c_size_t(len(data)), message, c_size_t(size))
    return result, message.value.decode()
