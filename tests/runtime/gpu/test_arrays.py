"""Arrays handed to other libraries and taken from them; in host memory, where the libraries that are here can judge."""

import gc
import re
import weakref

import numpy as np
import pytest
import torch

from dlf.runtime.errors import InvalidArgumentError
from dlf.runtime.gpu import dlpack
from dlf.runtime.gpu.arrays import DeviceArray, Loan, is_on_device, received
from dlf.runtime.gpu.dlpack import CPU, CUDA, Memory


class Owner(np.ndarray):
    """An array that can be watched."""


def ours(values: np.ndarray, device: tuple[int, int] = (CPU, 0), owner: object = None) -> DeviceArray:
    memory = Memory(values.ctypes.data, values.shape, values.dtype, device, owner if owner is not None else values)
    return DeviceArray(memory, stream=5, wait=lambda stream, other: waits.append((stream, other)))


waits: list[tuple[int, int]] = []


@pytest.fixture(autouse=True)
def no_waits() -> None:
    waits.clear()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("consume", [torch.from_dlpack, np.from_dlpack])
def test_dlpack_hands_the_memory_over(dtype, consume):
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    taken = consume(ours(values))
    assert tuple(taken.shape) == (2, 3, 4)
    assert str(taken.dtype).endswith(dtype)
    values[1, 2, 3] = 99
    assert taken[1, 2, 3] == 99  # no copy
    np.testing.assert_array_equal(np.asarray(taken), values)


def test_the_owner_lives_as_long_as_what_was_made_of_it():
    values = np.arange(6.0).view(Owner)
    watch = weakref.ref(values)
    taken = torch.from_dlpack(ours(values))
    del values
    gc.collect()
    assert watch() is not None
    assert taken.sum() == 15
    del taken
    gc.collect()
    assert watch() is None


def name(capsule: object) -> str:
    return re.search('"(.*)"', repr(capsule))[1]


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (None, "dltensor"),
        ((0, 8), "dltensor"),
        ((1, 0), "dltensor_versioned"),
        ((1, 3), "dltensor_versioned"),
        ((2, 0), "dltensor_versioned"),
    ],
)
def test_a_consumer_gets_the_version_that_it_asks_for(asked, given):
    assert name(ours(np.zeros(3)).__dlpack__(max_version=asked)) == given


@pytest.mark.parametrize("max_version", [None, (1, 0)])
@pytest.mark.parametrize("values", [np.arange(12).reshape(3, 4), torch.arange(12).reshape(3, 4)])
def test_capsules_of_either_version_are_taken(values, max_version):
    capsule = values.__dlpack__(max_version=max_version)
    memory = dlpack.receive(capsule)
    assert name(capsule) == ("used_dltensor_versioned" if max_version else "used_dltensor")
    address = values.ctypes.data if isinstance(values, np.ndarray) else values.data_ptr()
    assert (memory.address, memory.shape, memory.dtype) == (address, (3, 4), np.int64)
    with pytest.raises(InvalidArgumentError, match="used before"):
        dlpack.receive(capsule)


def test_a_capsule_of_a_later_major_version_is_refused_and_given_back(monkeypatch):
    values = np.arange(6.0).view(Owner)
    watch = weakref.ref(values)
    monkeypatch.setattr(dlpack, "VERSION", (2, 1))
    capsule = ours(values).__dlpack__(max_version=(2, 1))
    monkeypatch.undo()
    with pytest.raises(InvalidArgumentError, match=r"DLPack 2\.1"):
        dlpack.receive(capsule)
    del values
    gc.collect()
    assert watch() is None


@pytest.mark.parametrize("max_version", [None, (1, 0)])
def test_a_capsule_that_nobody_takes_releases_the_owner(max_version):
    values = np.arange(6.0).view(Owner)
    watch = weakref.ref(values)
    capsule = ours(values).__dlpack__(max_version=max_version)
    del values
    gc.collect()
    assert watch() is not None
    del capsule
    gc.collect()
    assert watch() is None


def test_received_arrays_are_where_the_library_has_them():
    for values in (np.arange(12, dtype=np.float32).reshape(3, 4), torch.arange(12, dtype=torch.uint8).reshape(3, 4)):
        memory = dlpack.receive(values.__dlpack__())
        address = values.ctypes.data if isinstance(values, np.ndarray) else values.data_ptr()
        assert (memory.address, memory.shape, memory.device) == (address, (3, 4), (CPU, 0))
        assert str(values.dtype).endswith(memory.dtype.name)


def test_a_received_array_is_kept_and_then_given_back():
    tensor = torch.arange(6)
    storage = weakref.ref(tensor.untyped_storage())
    memory = dlpack.receive(tensor.__dlpack__())
    copies = np.copy(np.from_dlpack(ours(np.zeros(1))))  # noqa: F841  other capsules come and go
    before = torch.from_dlpack(ours(np.zeros(0)))  # noqa: F841
    del tensor
    gc.collect()
    import ctypes

    assert list((ctypes.c_int64 * 6).from_address(memory.address)) == [0, 1, 2, 3, 4, 5]
    del memory
    gc.collect()
    assert storage() is None


@pytest.mark.parametrize("values", [torch.arange(12).reshape(3, 4).T, torch.arange(10)[::2]])
def test_arrays_that_are_not_dense_are_refused(values):
    with pytest.raises(InvalidArgumentError, match="contiguous"):
        dlpack.receive(values.__dlpack__())


def test_types_that_numpy_does_not_have_are_refused():
    with pytest.raises(InvalidArgumentError, match="convert"):
        dlpack.receive(torch.zeros(3, dtype=torch.bfloat16).__dlpack__())


@pytest.mark.parametrize(
    ("shape", "strides", "dense"),
    [
        ((2, 3), (3, 1), True),
        ((2, 3), (1, 2), False),
        ((1, 3), (99, 1), True),
        ((2, 0), (7, 7), True),
        ((), (), True),
        ((4,), (2,), False),
    ],
)
def test_density(shape, strides, dense):
    assert bool(dlpack.is_dense(shape, strides)) == dense


def test_cuda_array_interface():
    values = np.zeros((2, 3), np.float32)
    assert ours(values, (CUDA, 0)).__cuda_array_interface__ == {
        "shape": (2, 3),
        "typestr": "<f4",
        "data": (values.ctypes.data, False),
        "strides": None,
        "stream": 5,
        "version": 3,
    }


@pytest.mark.parametrize(("asked", "waiting"), [(None, [(1, 5)]), (9, [(9, 5)]), (-1, [])])
def test_the_consumers_stream_waits_for_ours(asked, waiting):
    ours(np.zeros(3)).__dlpack__(stream=asked)
    assert waits == waiting


@pytest.mark.parametrize("request_", [{"copy": True}, {"dl_device": (CPU, 1)}, {"dl_device": (CUDA, 0)}])
def test_copies_and_other_devices_are_refused(request_):
    with pytest.raises(BufferError):
        ours(np.zeros(3)).__dlpack__(**request_)
    assert waits == []


def test_what_is_the_case_may_be_asked_for():
    array = ours(np.arange(3.0))
    memory = dlpack.receive(array.__dlpack__(copy=False, dl_device=(CPU, 0), max_version=(1, 0)))
    assert memory.address == array.address


class Foreign:
    """Another library's array on a GPU."""

    def __init__(self, **changes: object) -> None:
        self.__cuda_array_interface__ = {"shape": (2, 3), "typestr": "<f4", "data": (4096, False), "version": 3, **changes}


def wait(stream: int, other: int) -> None:
    waits.append((stream, other))


def ordinal_of(address: int) -> int:
    return {4096: 1}[address]


def test_other_libraries_arrays_are_borrowed_in_order():
    array = Foreign(stream=8, strides=(12, 4))
    memory = received(array, 5, wait, ordinal_of)
    assert memory == Memory(4096, (2, 3), np.dtype(np.float32), (CUDA, 1), array)
    assert waits == [(5, 8)]
    waits.clear()
    received(Foreign(), 5, wait, ordinal_of)
    assert waits == []


@pytest.mark.parametrize("changes", [{"strides": (4, 8)}, {"mask": Foreign()}])
def test_arrays_with_strides_or_masks_are_refused(changes):
    with pytest.raises(InvalidArgumentError):
        received(Foreign(**changes), 5, wait, ordinal_of)


class Both(Foreign):
    """Like torch's: only DLPack is told the stream that waits."""

    def __init__(self, refusal: Exception | None = None) -> None:
        super().__init__()
        self.values, self.refusal = np.arange(4.0), refusal

    def __dlpack__(self, *, stream):
        if self.refusal:
            raise self.refusal
        waits.append((stream, -1))
        return self.values.__dlpack__()


def test_dlpack_comes_first():
    array = Both()
    assert received(array, 5, wait, ordinal_of).address == array.values.ctypes.data
    assert waits == [(5, -1)]


@pytest.mark.parametrize("refusal", [BufferError("it wants its gradient"), RuntimeError("it wants its gradient")])
def test_an_array_that_its_library_keeps_is_refused(refusal):
    with pytest.raises(InvalidArgumentError, match="wants its gradient"):
        received(Both(refusal), 5, wait, ordinal_of)


def test_what_is_on_a_gpu_is_known():
    assert is_on_device(Foreign())
    assert is_on_device(ours(np.zeros(3), (CUDA, 0)))
    for array in (np.zeros(3), torch.zeros(3), [1, 2], "photo.jpg", None):
        assert not is_on_device(array)


def test_parts_and_shapes_share_the_memory():
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    array = ours(values)
    assert (array[1].address, array[1].shape) == (values[1].ctypes.data, (3, 4))
    np.testing.assert_array_equal(np.from_dlpack(array.reshape(4, 6)), values.reshape(4, 6))
    assert (len(array), array.nbytes, array[0].nbytes) == (2, 48, 24)
    with pytest.raises(InvalidArgumentError):
        array.reshape(5, 5)
    with pytest.raises(IndexError):
        array[2]


def test_a_loan_tells_whether_another_library_saw_the_memory():
    returned: list[bool] = []
    for use, shared in (
        (len, False),
        (is_on_device, False),
        (torch.from_dlpack, True),
        (lambda a: a.__cuda_array_interface__, True),
    ):
        array = ours(values := np.zeros(4), owner=Loan(returned.append))
        part = array.reshape(2, 2)
        del array
        use(part)
        assert returned == []
        del part
        gc.collect()
        assert returned == [shared]
        assert values.size == 4
        returned.clear()
