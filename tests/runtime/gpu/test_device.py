"""The GPU runtime over host memory (`helpers.gpu`) and, where there is one, on a GPU; and its names of pycuda and CUDA."""

import ast
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
from dlf.runtime.errors import BackendFailedError, InvalidArgumentError, OutOfMemoryError
from dlf.runtime.gpu import driver
from dlf.runtime.libdlf import EntropyModel

SOURCE = Path(driver.__file__).with_name("device.py")


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


def test_memory_that_another_library_has_seen_is_not_reused(fake, fake_device):
    with fake_device as device:
        array = device.empty((1000,), np.float32)
        address = array.address
        assert address in fake.allocated
        assert array.__cuda_array_interface__["data"] == (address, False)
        del array
        device.empty((10,), np.float32)
        assert address not in fake.allocated  # freed, which waits for what others do with it


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
    def __init__(self, address: int, shape=(64,), typestr="<f4", device=(2, 0)) -> None:
        self.__cuda_array_interface__ = {"shape": shape, "typestr": typestr, "data": (address, False), "version": 3, "stream": 9}
        self.__dlpack_device__ = lambda: device


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


def test_arrays_elsewhere_or_of_another_type_are_refused(fake_device):
    with fake_device as device:
        with pytest.raises(InvalidArgumentError, match="on GPU 0 but on device"):
            device.borrow(Foreign(512, device=(2, 1)), np.float32)
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
            step=step,
            images=2,
            channels=channels,
            height=height,
            width=width,
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
        launches.launch_vq_lookup(launch, codebook, device.upload(z), tokens, entries=300, dim=12, tiles=3)
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


def names_of(source: Path, module: str) -> set[str]:
    """The dotted names that a source uses of a module: "Context.pop" of `cuda.Context.pop()`."""
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id == module:
            found.add(".".join(parts))
    return found


def test_every_name_of_pycuda_exists():
    names = names_of(SOURCE, "cuda")
    assert {"mem_alloc", "Context.pop", "function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES"} <= names
    try:
        driver = importlib.import_module("pycuda.driver")
    except ImportError as error:
        pytest.skip(f"pycuda cannot be imported: {error}")
    for name in names:
        found = driver
        for part in name.split("."):
            assert hasattr(found, part), name
            found = getattr(found, part)
    methods = {
        "Device": ("name", "compute_capability", "retain_primary_context"),
        "Context": ("push", "pop", "detach"),
        "Stream": ("synchronize", "handle"),
        "DeviceAllocation": ("free", "__int__"),
        "Module": ("get_function",),
        "Function": ("set_attribute", "__call__"),
    }
    assert not [(kind, name) for kind, names in methods.items() for name in names if not hasattr(getattr(driver, kind), name)]


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
        assert len(arguments) == len(declared[1].split(",")), exported
    assert re.search(rf"CU_STREAM_CAPTURE_MODE_THREAD_LOCAL\s*=\s*{driver.CAPTURE_THREAD_LOCAL}\b", header)
    assert re.search(rf"CU_EVENT_DISABLE_TIMING\s*=\s*0x{driver.EVENT_DISABLE_TIMING}\b", header)
    assert re.search(r"CU_STREAM_NON_BLOCKING\s*=\s*0x1\b", header)
    for name, number in zip(("MAJOR", "MINOR"), driver.COMPUTE_CAPABILITY, strict=True):
        assert re.search(rf"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{name}\s*=\s*{number}\b", header)


def test_first_gpu_is_what_the_driver_says(monkeypatch):
    class Driver:
        """Of a machine with one GPU."""

        def cuInit(self, flags):  # noqa: N802
            return 0

        def cuDeviceGetCount(self, count):  # noqa: N802
            count._obj.value = 1
            return 0

        def cuDeviceGet(self, device, ordinal):  # noqa: N802
            device._obj.value = 7
            return 0 if ordinal == 0 else 101

        def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
            value._obj.value = dict(zip(driver.COMPUTE_CAPABILITY, (8, 9), strict=True))[attribute]
            return 0 if device.value == 7 else 101

        def cuDeviceGetName(self, name, length, device):  # noqa: N802
            name.value = b"NVIDIA L4"
            return 0 if device.value == 7 and length > len(name.value) else 101

    monkeypatch.setattr(driver, "_library", Driver)
    assert driver.first_gpu() == ((8, 9), "NVIDIA L4")
    monkeypatch.setattr(driver, "missing", lambda: "no driver")
    assert driver.first_gpu() is None


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
