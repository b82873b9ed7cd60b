"""The GPU runtime over host memory (`helpers.gpu`) and, where there is one, on a GPU; the driver's functions by CUDA's header."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import gpu as helpers_gpu
from helpers.entropy import random_tables

from dlf.kernels import launches
from dlf.kernels.entropy_params_reference import entropy_params
from dlf.runtime.errors import BackendFailedError, BackendMissingError, InvalidArgumentError, OutOfMemoryError
from dlf.runtime.gpu import driver
from dlf.runtime.gpu.allocator import SET_ASIDE
from dlf.runtime.libdlf import EntropyModel


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> helpers_gpu.FakeGPU:
    return helpers_gpu.FakeGPU(random_tables(np.random.default_rng(0), 8))


@pytest.fixture(params=["fake", pytest.param("gpu", marks=helpers_gpu.ON_GPU)])
def device(request: pytest.FixtureRequest, fake: helpers_gpu.FakeGPU, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A device of host memory and, where there is one, a GPU."""
    module = (
        helpers_gpu.install(monkeypatch, fake) if request.param == "fake" else importlib.import_module("dlf.runtime.gpu.device")
    )
    device = module.Device()
    yield device
    device.close()


@pytest.fixture
def fake_device(fake: helpers_gpu.FakeGPU, monkeypatch: pytest.MonkeyPatch):
    return helpers_gpu.install(monkeypatch, fake).Device()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "uint16", "float32"])
def test_values_go_there_and_come_back(device, dtype):
    values = np.arange(30).reshape(5, 6).astype(dtype)
    with device:
        array = device.upload(values)
        kept, values[:] = values.copy(), 0  # the upload has its own copy
        (back,) = device.read(array)
    assert back.dtype == kept.dtype
    np.testing.assert_array_equal(back, kept)


def test_copies_parts_and_zeros(device):
    with device:
        array = device.upload(np.arange(64 * 3, dtype=np.int32).reshape(3, 64))
        other = device.empty((3, 64), np.int32)
        device.zero(other)
        device.copy(other[1], array[2])
        device.write(other[2], np.full(64, 7, np.int32))
        back, part = device.read(other, array[1])
    np.testing.assert_array_equal(back, [[0] * 64, range(128, 192), [7] * 64])
    np.testing.assert_array_equal(part, range(64, 128))


def test_arrays_of_another_size_or_type_are_refused(device):
    with device:
        array = device.empty((4,), np.int32)
        for values in (np.zeros(3, np.int32), np.zeros(4, np.float32)):
            with pytest.raises(InvalidArgumentError):
                device.write(array, values)
        with pytest.raises(InvalidArgumentError):
            device.copy(array, device.empty((4,), np.float32))


def test_memory_is_reused_once_nothing_refers_to_it(device):
    with device:
        array = device.empty((1000,), np.float32)
        address, part = array.address, array.reshape(10, 100)[1]
        del array
        assert device.empty((1000,), np.float32).address != address  # the part is in use
        del part
        assert device.empty((1000,), np.float32).address == address


def test_memory_that_another_library_has_seen_is_used_again_after_one_wait_for_several(fake, fake_device):
    addresses = set()
    with fake_device as device:
        for _ in range(SET_ASIDE):
            assert fake.synchronisations == 0
            array = device.empty((1000,), np.float32)
            assert array.__cuda_array_interface__["data"] == (array.address, False)
            assert array.address not in addresses
            addresses.add(array.address)
            del array
        assert device.empty((1000,), np.float32).address in addresses
    assert fake.synchronisations == 1


def test_memory_that_was_set_aside_makes_way(fake, fake_device):
    with fake_device as device:
        fake.limit = 1 << 20
        array = device.empty((700_000,), np.uint8)
        assert array.__cuda_array_interface__
        del array
        device.empty((800_000,), np.uint8)
    assert fake.synchronisations == 1


def test_unused_memory_makes_way(fake, fake_device):
    with fake_device as device:
        fake.limit = 1 << 20
        del (large := [device.empty((700_000,), np.uint8)])[0]
        del large
        device.empty((800_000,), np.uint8)  # fits, once the unused buffer is gone
        with pytest.raises(OutOfMemoryError, match=r"no GPU at all has no \d+ bytes.*take fewer or smaller images"):
            device.empty((2_000_000,), np.uint8)


def test_reading_waits_once(fake, fake_device):
    with fake_device as device:
        arrays = [device.upload(np.full(4, k)) for k in range(3)]
        assert fake.synchronisations == 0
        assert [int(values[0]) for values in device.read(*arrays)] == [0, 1, 2]
    assert fake.synchronisations == 1


def test_the_context_is_current_only_within(fake, fake_device):
    assert fake.pushed == 0
    with fake_device:
        assert fake.pushed == 1
        with fake_device:
            assert fake.pushed == 2
    assert fake.pushed == 0
    with pytest.raises(RuntimeError), fake_device:
        raise RuntimeError
    assert fake.pushed == 0


def test_a_given_stream_is_before_and_after(fake, monkeypatch):
    device = helpers_gpu.install(monkeypatch, fake).Device(helpers_gpu.GIVEN_STREAM)
    assert fake.waits == []
    with device, device:
        assert fake.waits == [(device.stream, helpers_gpu.GIVEN_STREAM)]
    assert fake.waits[1:] == [(helpers_gpu.GIVEN_STREAM, device.stream)]


def test_without_one_no_stream_waits(fake, fake_device):
    with fake_device:
        pass
    assert fake.waits == []


def test_the_context_is_current_when_another_library_waits(fake, fake_device, monkeypatch):
    """Outside of `with device`, as in a fresh thread."""
    pushed = []
    monkeypatch.setattr(driver, "wait", lambda stream, other: pushed.append(fake.pushed))
    with fake_device as device:
        array = device.empty((4,), np.float32)
    array.__dlpack__(stream=7)
    assert pushed == [1]
    assert fake.pushed == 0


class Foreign:
    """An array as pycuda's are."""

    def __init__(self, address: int, shape=(64,), typestr="<f4") -> None:
        self.__cuda_array_interface__ = {"shape": shape, "typestr": typestr, "data": (address, False), "version": 3, "stream": 9}


def test_arrays_of_others_are_borrowed_or_aligned(fake, fake_device):
    values = np.arange(200, dtype=np.float32)
    with fake_device as device:
        memory = device.upload(values)
        straight = device.borrow(Foreign(memory.address), np.float32)
        assert straight.address == memory.address
        assert fake.waits == [(device.stream, 9)]
        aligned = device.borrow(Foreign(memory.address + 4), np.float32)
        assert aligned.address % 256 == 0
        np.testing.assert_array_equal(device.read(aligned)[0], values[1:65])
        assert device.borrow(memory, np.float32).address == memory.address


def test_arrays_elsewhere_or_of_another_type_are_refused(fake, fake_device):
    fake.elsewhere[1024] = 1
    with fake_device as device:
        with pytest.raises(InvalidArgumentError, match="on GPU 0 but on device"):
            device.borrow(Foreign(1024), np.float32)
        with pytest.raises(InvalidArgumentError, match="float32, not uint8"):
            device.borrow(Foreign(512), np.uint8)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_prior_is_the_cores(device, step):
    """On a GPU this is the test that the compiled kernels give what every other implementation gives, bit by bit."""
    channels, height, width = 8, 10, 24
    tables = random_tables(np.random.default_rng(0), channels)
    r = np.random.default_rng(step).integers(-9000, 9000, (2, channels, height, width)).astype(np.int32)
    packed = launches.pack_prior(tables)
    with device:
        launch = device.kernels(packed.d)
        weights = {name: device.upload(value) for name, value in vars(packed).items() if name != "d"}
        scratch = [device.empty((2, height * width, packed.d), np.int16) for _ in range(3)]
        outputs = [device.empty(r.shape, np.int16) for _ in range(2)]
        launches.launch_entropy_params(
            launch,
            launches.PriorWeights(packed.d, **weights),
            launches.Buffers(device.upload(r), *scratch, *outputs),
            launches.MapSizes(2, channels, height, width),
            step,
        )
        indexes, means = device.read(*outputs)
    model = EntropyModel(tables.to_bytes())
    for image in range(2):
        for want, got in zip(model.prior_step(step, r[image]), (indexes[image], means[image]), strict=True):
            np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(indexes[image], entropy_params(tables, step, r[image])[0])


def test_tokens_are_the_cores(device):
    tables = random_tables(np.random.default_rng(0), 8, entries=300, dim=12)
    z = np.random.default_rng(1).normal(size=(3, 12, 32)).astype(np.float32)
    with device:
        launch = device.kernels(None)
        tokens = device.empty((3, 32), np.uint16)
        codebook = device.upload(np.ascontiguousarray(tables.codebook.T))
        launches.launch_vq_lookup(launch, launches.Codebook(codebook, 300, 12), device.upload(z), tokens, 3)
        (got,) = device.read(tokens)
    np.testing.assert_array_equal(got, EntropyModel(tables.to_bytes()).vq_lookup(z))


def test_graphs_follow_shapes_and_addresses(device):
    """The same work on the same arrays is recorded and replayed; on others it is recorded again."""
    values = np.arange(64, dtype=np.float32)
    with device:
        source, one, other = device.upload(values), device.empty((64,), np.float32), device.empty((64,), np.float32)
        for round_, to in enumerate([one, one, one, other, other, one]):
            device.write(source, values + round_)
            device.replay("copy", 64, [source, to], lambda to=to: device.copy(to, source))
            np.testing.assert_array_equal(device.read(to)[0], values + round_)


def test_graphs_are_launched_not_the_work(fake, fake_device):
    with fake_device as device:
        source, to = device.upload(np.arange(8)), device.empty((8,), np.int64)
        done = []
        for _ in range(4):
            device.replay("copy", 8, [source, to], lambda: (done.append(1), device.copy(to, source)))
    assert len(done) == 2  # once as it came, once to be recorded
    assert fake.graphs == [3]
    fake_device.close()
    assert fake.graphs == [None]


def test_the_largest_kernels_get_the_shared_memory_that_they_want(fake_device):
    with fake_device as device:
        launch = device.kernels(256)  # the fake refuses what was not granted
        with pytest.raises(InvalidArgumentError, match="prior_end takes"):
            launch("prior_end", (1, 1), {})


def test_a_gpu_without_kernels_is_refused(monkeypatch):
    fake = helpers_gpu.FakeGPU(capability=(6, 1))
    with helpers_gpu.install(monkeypatch, fake).Device() as device, pytest.raises(BackendFailedError, match=r"capability 6\.1"):
        device.kernels(None)


def test_every_function_of_the_driver_exists_with_its_arguments():
    """Against NVIDIA's cuda.h, which comes with Triton."""
    triton = pytest.importorskip("triton")
    header = (Path(triton.__file__).parent / "backends" / "nvidia" / "include" / "cuda.h").read_text()
    assert int(re.search(r"#define CUDA_VERSION (\d+)", header)[1]) >= 12000
    # The header declares a function by its first name, which it may define to be that of a later version.
    names = {exported: name for name, exported in re.findall(r"#define\s+(cu\w+)\s+(?:__CUDA_API_\w+\()?(cu\w+)", header)}
    for exported, arguments in driver.SIGNATURES.items():
        name = names.get(exported, exported)
        assert name not in names.values() or names.get(exported) == name, f"{name} stands for a later version"
        declared = re.search(rf"CUresult CUDAAPI {name}\(([^)]*)\);", header)
        assert declared, exported
        declared_arguments = [argument for argument in declared[1].split(",") if argument != "void"]
        assert len(arguments) == len(declared_arguments), exported
    assert re.search(rf"CU_STREAM_CAPTURE_MODE_THREAD_LOCAL\s*=\s*{driver.CAPTURE_THREAD_LOCAL}\b", header)
    assert re.search(rf"CU_EVENT_DISABLE_TIMING\s*=\s*0x{driver.EVENT_DISABLE_TIMING}\b", header)
    assert re.search(rf"CU_STREAM_NON_BLOCKING\s*=\s*0x{driver.STREAM_NON_BLOCKING}\b", header)
    assert re.search(rf"CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES\s*=\s*{driver.MAX_DYNAMIC_SHARED}\b", header)
    assert re.search(rf"CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL\s*=\s*{driver.DEVICE_ORDINAL}\b", header)
    assert re.search(rf"CUDA_ERROR_OUT_OF_MEMORY\s*=\s*{driver.OUT_OF_MEMORY}\b", header)
    for name, number in zip(("MAJOR", "MINOR"), driver.COMPUTE_CAPABILITY, strict=True):
        assert re.search(rf"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{name}\s*=\s*{number}\b", header)


def test_the_gpu_is_what_the_driver_says(fake, monkeypatch):
    helpers_gpu.install(monkeypatch, fake)
    assert driver.describe() == ((8, 9), "no GPU at all")
    assert driver.describe(1) is None
    assert driver.missing(1) == "NVIDIA's driver finds no GPU 1, only 1, counted from 0"
    assert driver.version() == "13.1"
    monkeypatch.setattr(fake, "cuDeviceGetCount", lambda out: None)
    assert driver.describe() is None


@pytest.mark.parametrize(("code", "kind"), [(2, OutOfMemoryError), (700, BackendFailedError)])
@pytest.mark.parametrize("function", ["cuStreamSynchronize", "cuMemcpyHtoDAsync_v2", "cuMemHostAlloc", "cuMemAlloc_v2"])
def test_an_error_of_cudas_is_one_of_dlfs(fake, fake_device, function, code, kind):
    fake.fails[function] = code
    with pytest.raises(kind, match=r"what it says|no \d+ bytes"), fake_device as device:
        device.read(device.upload(np.zeros(3)))
    assert fake.pushed == 0


def test_nothing_is_left_where_a_gpu_cannot_be_entered(fake, monkeypatch):
    device = helpers_gpu.install(monkeypatch, fake).Device(helpers_gpu.GIVEN_STREAM)
    fake.fails["cuEventCreate"] = 700
    with pytest.raises(BackendFailedError), device:
        pass
    assert fake.stack == []


def test_a_gpu_whose_stream_cannot_be_made_gives_its_context_back(fake, monkeypatch):
    fake.fails["cuStreamCreate"] = 700
    with pytest.raises(BackendFailedError):
        helpers_gpu.install(monkeypatch, fake).Device()
    assert (fake.stack, fake.retained) == ([], 0)


def test_a_gpu_that_is_not_there_is_refused(fake, monkeypatch):
    with pytest.raises(BackendMissingError, match="finds no GPU 1"):
        helpers_gpu.install(monkeypatch, fake).Device(ordinal=1)


@pytest.mark.parametrize(("current", "used"), [(None, "PRIMARY"), ("PRIMARY", "PRIMARY"), ("PYCUDAS", "PYCUDAS")])
def test_a_context_that_pycuda_has_made_current_is_used(fake, monkeypatch, current, used):
    """By default it is the primary one, which torch uses and `pycuda.autoprimaryctx` makes current."""
    if current:
        fake.stack.append(getattr(helpers_gpu, current))
    device = helpers_gpu.install(monkeypatch, fake).Device()
    with device:
        assert fake.stack[-1] == getattr(helpers_gpu, used)
    assert fake.retained == (used == "PRIMARY")
    device.close()
    assert fake.retained == 0
    assert fake.pushed == (current is not None)


def test_closing_frees_everything(fake, monkeypatch):
    device = helpers_gpu.install(monkeypatch, fake).Device()
    with device:
        device.kernels(32)
        device.upload(np.zeros(1000))  # whose host memory is still staged
        device.read(device.empty((10,), np.uint8))
        array = device.empty((30,), np.float32)
    device.close()
    assert (fake.pinned, fake.streams, fake.modules) == ({}, set(), set())
    assert list(fake.allocated) == [array.address]
    assert fake.retained == 1  # for the array, which torch may have
    array.__dlpack__(stream=1)
    del array
    assert (fake.allocated, fake.retained, fake.stack) == ({}, 0, [])
    with pytest.raises(BackendFailedError, match="was closed"), device:
        pass


@pytest.mark.skipif(driver.missing() is None, reason="there is a GPU")
def test_without_a_gpu_it_is_said_why():
    assert re.search(r"NVIDIA's driver (is not installed|offers no GPU|finds no GPU)", driver.missing())


@pytest.mark.gpu
@pytest.mark.skipif(helpers_gpu.NO_GPU is not None, reason=f"no GPU to run on: {helpers_gpu.NO_GPU}")
def test_beside_torch():
    """Torch's work goes on before, between and after ours, in the same context."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA")
    from dlf.runtime.gpu.device import Device

    before = torch.arange(1000, device="cuda", dtype=torch.float32)
    device = Device(torch.cuda.current_stream().cuda_stream)
    with device:
        borrowed = device.borrow(before * 2, np.float32)
        copied = device.empty((1000,), np.float32)
        device.copy(copied, borrowed)
    taken = torch.from_dlpack(copied)
    assert torch.equal(taken, before * 2)
    assert torch.equal(torch.as_tensor(copied, device="cuda"), before * 2)
    device.close()
    assert (before + 1).sum().item() == 500500
    assert torch.equal(taken, before * 2)
