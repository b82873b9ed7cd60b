"""DLPack capsules, in and out: how array libraries hand each other memory of any device without copying.

The structures are those of dlpack.h (https://dmlc.github.io/dlpack): version 0.x, which every library takes where no version is
asked for, and version 1.x, where it is. Arrays are dense and row-major.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlf.runtime.errors import InvalidArgumentError

CPU, CUDA = 1, 2  # DLDeviceType
_CODES = {"i": 0, "u": 1, "f": 2}  # DLDataTypeCode by NumPy's kind
VERSION = (1, 0)


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


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    """DLManagedTensor, of version 0.x."""

    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _DELETER))


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned. In a later major version only what is before `flags` is sure to be the same."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", _DELETER),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


# Of each structure, the capsule's name before and after its content is taken over. A capsule keeps the address of its name.
_NAMES: dict[type[_Managed | _Versioned], bytes] = {_Versioned: b"dltensor_versioned", _Managed: b"dltensor"}
_USED_NAMES = {b"dltensor_versioned": b"used_dltensor_versioned", b"dltensor": b"used_dltensor"}

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

_exported: dict[int, tuple[object, ...]] = {}  # address of a structure -> all that must live as long as its consumer


@dataclass(frozen=True)
class Memory:
    """Where an array lies, and what keeps it alive.

    Attributes:
        address: of its first byte.
        shape, dtype: of the array, which is dense and row-major.
        device: type (`CPU`, `CUDA`) and number.
        owner: an object that keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: tuple[int, int]
    owner: object


class _Received:
    """The content of a capsule. It is given back to its library when this object is deleted."""

    def __init__(self, managed: Any) -> None:
        self._managed = managed

    def __del__(self) -> None:
        if self._managed.deleter:
            self._managed.deleter(ctypes.addressof(self._managed))


def receive(capsule: object) -> Memory:
    """Take over the array of a capsule that an object's `__dlpack__` gave.

    Raises:
        InvalidArgumentError: it is no such capsule or was taken over before, is of a later version or of a type that dlf does not
            have, or is not dense and row-major.
    """
    kind, name = next(((kind, name) for kind, name in _NAMES.items() if _is_named(id(capsule), name)), (None, b""))
    if kind is None:
        raise InvalidArgumentError("the array's library gave no DLPack capsule, or one that was used before.")
    managed = kind.from_address(_pointer(id(capsule), name))
    _rename(id(capsule), _USED_NAMES[name])
    owner = _Received(managed)
    if kind is _Versioned and managed.major != VERSION[0]:
        raise InvalidArgumentError(f"an array of DLPack {managed.major}.{managed.minor} was given where {VERSION} was asked for.")
    tensor = managed.tensor
    kinds = {code: kind for kind, code in _CODES.items()}
    if tensor.code not in kinds or tensor.lanes != 1:
        raise InvalidArgumentError(f"an array of DLPack's type {tensor.code} is not supported; convert it first.")
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.strides and not is_dense(shape, tuple(tensor.strides[: tensor.ndim])):
        raise InvalidArgumentError("the array is not dense and row-major; make it contiguous first.")
    dtype = np.dtype(f"{kinds[tensor.code]}{tensor.bits // 8}")
    address = (tensor.data or 0) + tensor.byte_offset
    return Memory(address, shape, dtype, (tensor.device_type, tensor.device_id), owner)


def send(memory: Memory, versioned: bool = False) -> Any:
    """Return a capsule of an array, for an object's `__dlpack__` to return.

    The memory's owner lives as long as the array that the consumer makes of it.

    Args:
        memory: the array.
        versioned: whether the capsule is of `VERSION`, or of 0.x.
    """
    kind = _Versioned if versioned else _Managed
    shape = (ctypes.c_int64 * len(memory.shape))(*memory.shape)
    managed: Any = kind()
    if versioned:
        managed.major, managed.minor = VERSION
    tensor = managed.tensor
    tensor.data, tensor.device_type, tensor.device_id = memory.address, *memory.device
    tensor.ndim, tensor.shape = len(memory.shape), shape
    tensor.code, tensor.bits, tensor.lanes = _CODES[memory.dtype.kind], 8 * memory.dtype.itemsize, 1
    managed.deleter = _forget_from_c
    _exported[ctypes.addressof(managed)] = (managed, shape, memory.owner)
    return _new(ctypes.addressof(managed), _NAMES[kind], _drop_from_c)


def _forget(address: int) -> None:
    """Release an array's memory. Its consumer calls this."""
    _exported.pop(address, None)


def _drop(capsule: int) -> None:
    """Release the content of a capsule that is deleted before anybody took it over."""
    for name in _NAMES.values():
        if _is_named(capsule, name):
            _exported.pop(_pointer(capsule, name), None)


_forget_from_c, _drop_from_c = _DELETER(_forget), _DESTRUCTOR(_drop)


def is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether strides, in elements, are those of a dense row-major array."""
    expected = 1
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side != 1 and stride != expected:
            return 0 in shape
        expected *= side
    return True
