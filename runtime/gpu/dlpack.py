"""DLPack capsules, in and out: how array libraries hand each other memory of any device without copying.

The structures are those of dlpack.h, version 0.x, which every library still takes where no version is asked for
(https://dmlc.github.io/dlpack). Arrays are dense and row-major.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlf.runtime.errors import InvalidArgumentError

CPU, CUDA = 1, 2  # DLDeviceType
_CODES = {"i": 0, "u": 1, "f": 2}  # DLDataTypeCode by NumPy's kind
_NAME, _USED_NAME = b"dltensor", b"used_dltensor"


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _DELETER))

_DESTRUCTOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_new = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, _DESTRUCTOR)
# Capsules are passed as their addresses, id(capsule): a reference would be one too many in a capsule's destructor.
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p)
_rename = ctypes.pythonapi.PyCapsule_SetName
_rename.restype, _rename.argtypes = ctypes.c_int, (ctypes.c_void_p, ctypes.c_char_p)
_is_named = ctypes.pythonapi.PyCapsule_IsValid
_is_named.restype, _is_named.argtypes = ctypes.c_int, (ctypes.c_void_p, ctypes.c_char_p)

_exported: dict[int, tuple[object, ...]] = {}  # address of a _Managed -> all that must live as long as its consumer


@dataclass(frozen=True)
class Memory:
    """Where an array lies, and what keeps it alive.

    Attributes:
        address: of its first byte.
        shape, dtype: of the array, which is dense and row-major.
        device: type (`CPU`, `CUDA`) and number.
        owner: whatever has to be kept for as long as the memory is used.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: tuple[int, int]
    owner: object


class _Received:
    """A capsule's content, which is given back when this goes."""

    def __init__(self, managed: Any) -> None:
        self._managed = managed

    def __del__(self) -> None:
        if self._managed.contents.deleter:
            self._managed.contents.deleter(self._managed)


def receive(capsule: object) -> Memory:
    """Take over the array of a capsule that an object's `__dlpack__` gave.

    Raises:
        InvalidArgumentError: it is of a type that dlf does not have, or not dense and row-major.
    """
    managed = ctypes.cast(_pointer(id(capsule), _NAME), ctypes.POINTER(_Managed))
    _rename(id(capsule), _USED_NAME)
    owner = _Received(managed)
    tensor = managed.contents.tensor
    kinds = {code: kind for kind, code in _CODES.items()}
    if tensor.code not in kinds or tensor.lanes != 1:
        raise InvalidArgumentError(f"an array of DLPack's type {tensor.code} is not supported; convert it first.")
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.strides and not is_dense(shape, tuple(tensor.strides[: tensor.ndim])):
        raise InvalidArgumentError("the array is not dense and row-major; make it contiguous first.")
    dtype = np.dtype(f"{kinds[tensor.code]}{tensor.bits // 8}")
    address = (tensor.data or 0) + tensor.byte_offset
    return Memory(address, shape, dtype, (tensor.device_type, tensor.device_id), owner)


def send(memory: Memory) -> Any:
    """A capsule of an array, for an object's `__dlpack__` to return; the memory's owner lives as long as its consumer's array."""
    shape = (ctypes.c_int64 * len(memory.shape))(*memory.shape)
    managed = _Managed()
    tensor = managed.tensor
    tensor.data, tensor.device_type, tensor.device_id = memory.address, *memory.device
    tensor.ndim, tensor.shape = len(memory.shape), shape
    tensor.code, tensor.bits, tensor.lanes = _CODES[memory.dtype.kind], 8 * memory.dtype.itemsize, 1
    managed.deleter = _forget_from_c
    _exported[ctypes.addressof(managed)] = (managed, shape, memory.owner)
    return _new(ctypes.addressof(managed), _NAME, _drop_from_c)


def _forget(managed: Any) -> None:
    """The deleter of an array's memory, which its consumer calls."""
    _exported.pop(ctypes.addressof(managed.contents), None)


def _drop(capsule: int) -> None:
    """The destructor of a capsule: where nobody took its content over, that goes with it."""
    if _is_named(capsule, _NAME):
        _exported.pop(_pointer(capsule, _NAME), None)


_forget_from_c, _drop_from_c = _DELETER(_forget), _DESTRUCTOR(_drop)


def is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether strides, in elements, are those of a dense row-major array."""
    expected = 1
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side != 1 and stride != expected:
            return 0 in shape
        expected *= side
    return True
