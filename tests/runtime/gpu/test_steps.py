"""The steps on a GPU give what those on the CPU give: over host memory (`helpers.gpu`) and, where there is one, on a GPU."""

import importlib
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from helpers import gpu as helpers_gpu
from helpers.entropy import random_tables

import dlf
from dlf.kernels import launches
from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime.backends import onnxruntime as host_backend
from dlf.runtime.gpu.steps import GPUSteps, prior_width
from dlf.runtime.libdlf import EntropyModel, Limits
from dlf.runtime.steps import HostSteps

CHANNELS, DIM = 8, 4


def untimed(step: str) -> Any:
    return nullcontext()


@pytest.fixture(scope="module")
def tables() -> EntropyTables:
    return random_tables(np.random.default_rng(0), CHANNELS, dim=DIM)


@pytest.fixture(scope="module")
def model(tables) -> EntropyModel:
    return EntropyModel(tables.to_bytes())


@pytest.fixture
def fake(tables) -> helpers_gpu.FakeGPU:
    return helpers_gpu.FakeGPU(tables)


@pytest.fixture(params=["fake", pytest.param("gpu", marks=helpers_gpu.ON_GPU)])
def device(request, fake, monkeypatch) -> Iterator:
    module = (
        helpers_gpu.install(monkeypatch, fake) if request.param == "fake" else importlib.import_module("dlf.runtime.gpu.device")
    )
    device = module.Device()
    yield device
    device.close()


@pytest.fixture
def steps(device, model, tables) -> GPUSteps:
    return GPUSteps(device, model, tables, untimed)


@pytest.fixture
def fake_steps(fake, monkeypatch, model, tables) -> GPUSteps:
    return GPUSteps(helpers_gpu.install(monkeypatch, fake).Device(), model, tables, untimed)


def latents(images: int, down: int, across: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(images, down, across, DIM, 32)).astype(np.float32)
    return z, rng.normal(0, 6, (images, CHANNELS, 8 * down, 8 * across)).astype(np.float32)


def on(device, *arrays):
    with device:
        return [device.upload(each) for each in arrays]


def off(device, array):
    with device:
        return device.read(array)[0]


@pytest.mark.parametrize(("images", "down", "across"), [(1, 1, 1), (3, 1, 2), (1, 2, 3)])
def test_encode_gives_the_hosts_tokens_and_streams(device, steps, model, images, down, across):
    z, y = latents(images, down, across)
    want = HostSteps(model, untimed).encode(z, y)
    for _ in range(4):  # as it comes, recorded, replayed twice
        got = steps.encode(*on(device, z, y))
        assert [stream for _, stream in got] == [stream for _, stream in want]
        np.testing.assert_array_equal([tokens for tokens, _ in got], [tokens for tokens, _ in want])


@pytest.mark.parametrize(("images", "down", "across"), [(1, 1, 1), (3, 1, 2), (1, 2, 3)])
def test_decode_gives_the_hosts_latents(device, steps, model, images, down, across):
    coded = HostSteps(model, untimed).encode(*latents(images, down, across, seed=1))
    tokens, details = zip(*coded, strict=True)
    want = HostSteps(model, untimed).decode(tokens, details, down, across)
    for _ in range(4):
        got = steps.decode(tokens, details, down, across)
        assert got.keys() == want.keys()
        for name in want:
            np.testing.assert_array_equal(off(device, got[name]), want[name])


def test_shapes_take_turns(device, steps, model):
    for seed, (images, down, across) in enumerate([(1, 1, 1), (2, 1, 1), (1, 1, 1), (1, 2, 1), (1, 1, 2), (1, 1, 1)] * 2):
        z, y = latents(images, down, across, seed)
        want = HostSteps(model, untimed).encode(z, y)
        assert [stream for _, stream in steps.encode(*on(device, z, y))] == [stream for _, stream in want]


def test_encoding_waits_once_and_decoding_four_times(fake, fake_steps):
    z, y = on(fake_steps._device, *latents(2, 1, 1))
    image = on(fake_steps._device, np.zeros((2, 3, 256, 256), np.float32))[0]
    before = fake.synchronisations
    fake_steps.pad([np.zeros((20, 30, 3), np.uint8)] * 2)
    coded = fake_steps.encode(z, y)
    assert fake.synchronisations - before == 1
    before = fake.synchronisations
    fake_steps.decode(*zip(*coded, strict=True), 1, 1)
    fake_steps.crop(image, [(20, 30)] * 2, on_device=False)
    assert fake.synchronisations - before == 4


def test_the_steps_are_replayed_as_graphs(fake, fake_steps):
    z, y = on(fake_steps._device, *latents(1, 1, 1))
    for _ in range(5):
        fake_steps.encode(z, y)
    assert fake.graphs == [4]  # the first time it was done as it came
    other = on(fake_steps._device, latents(1, 1, 1)[1])[0]
    fake_steps.encode(z, other)  # y lies elsewhere
    assert fake.graphs == [None]
    fake_steps.encode(z, other)
    assert fake.graphs == [None, 1]


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_damaged_stream_is_refused_with_its_index(device, steps, damaged):
    coded = steps.encode(*on(device, *latents(3, 1, 1)))
    tokens, details = map(list, zip(*coded, strict=True))
    details[damaged] += b"x"
    with pytest.raises(dlf.TrailingBytesError) as refusal:
        steps.decode(tokens, details, 1, 1)
    assert refusal.value.index == damaged
    details[damaged] = b"\xff\xff\xff\xff"
    with pytest.raises(dlf.StreamCorruptError) as refusal:
        steps.decode(tokens, details, 1, 1)
    assert refusal.value.index == damaged


def test_a_token_outside_the_codebook_is_refused_with_its_index(device, steps, model):
    coded = steps.encode(*on(device, *latents(2, 1, 1)))
    tokens, details = map(list, zip(*coded, strict=True))
    tokens[1] = tokens[1].copy()
    tokens[1][0, 0] = model.codebook_size
    with pytest.raises(dlf.StreamCorruptError) as refusal:
        steps.decode(tokens, details, 1, 1)
    assert refusal.value.index == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["z", "y"])
def test_latents_that_are_not_finite_are_refused(device, steps, value, name):
    z, y = latents(2, 1, 1)
    (z if name == "z" else y)[1, ..., -1] = value
    with pytest.raises(dlf.BackendFailedError, match=f"analysis gave values that are not finite as {name}"):
        steps.encode(*on(device, z, y))


@pytest.mark.parametrize("sizes", [[(1, 1)], [(300, 256)], [(20, 300), (256, 257), (1, 512)]])
def test_pictures_are_the_hosts(device, steps, model, sizes):
    host, rng = HostSteps(model, untimed), np.random.default_rng(2)
    pixels = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    batch = host.pad(pixels)
    np.testing.assert_array_equal(off(device, steps.pad(pixels)), batch)
    np.testing.assert_array_equal(off(device, steps.pad([on(device, each)[0] for each in pixels])), batch)
    image = rng.normal(0, 0.8, batch.shape).astype(np.float32)
    want = host.crop(image, sizes, on_device=False)
    (there,) = on(device, image)
    for got, expected in zip(steps.crop(there, sizes, on_device=False), want, strict=True):
        np.testing.assert_array_equal(got, expected)
    for got, expected in zip(steps.crop(there, sizes, on_device=True), want, strict=True):
        np.testing.assert_array_equal(off(device, got), expected)


@pytest.mark.parametrize("on_device", [False, True])
def test_a_picture_that_is_not_finite_is_refused(device, steps, on_device):
    image = np.zeros((2, 3, 256, 256), np.float32)
    image[1, 2, 255, 255] = np.nan  # in the padding
    with pytest.raises(dlf.BackendFailedError, match="generator gave values that are not finite as image"):
        steps.crop(on(device, image)[0], [(10, 10)] * 2, on_device)


def test_pictures_on_the_gpu_are_taken(device, steps):
    pixels = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)
    (there,) = on(device, pixels)
    np.testing.assert_array_equal(off(device, steps.load(there, Limits())), pixels)
    np.testing.assert_array_equal(steps.load(pixels, Limits()), pixels)
    with pytest.raises(dlf.SizeLimitError):
        steps.load(there, Limits(max_side=29))
    for wrong in (np.zeros((20, 30), np.uint8), np.zeros((20, 30, 4), np.uint8), np.zeros((20, 30, 3), np.float32)):
        with pytest.raises(dlf.ImageError):
            steps.load(on(device, wrong)[0], Limits())


@pytest.mark.parametrize(
    ("capability", "channels", "width"),
    [((8, 9), 64, 128), ((8, 0), 128, 256), ((12, 0), 4, 32), ((8, 9), 132, None), ((7, 5), 64, None)],
)
def test_where_the_prior_runs(capability, channels, width):
    assert prior_width(capability, channels) == width


def test_without_the_priors_kernels_the_files_are_the_same(monkeypatch, model, tables):
    turing = helpers_gpu.FakeGPU(tables, capability=(7, 5))
    device = helpers_gpu.install(monkeypatch, turing).Device()
    steps = GPUSteps(device, model, tables, untimed)
    z, y = latents(2, 1, 2)
    want = HostSteps(model, untimed).encode(z, y)
    got = steps.encode(*on(device, z, y))
    assert [stream for _, stream in got] == [stream for _, stream in want]
    arrays = steps.decode(*zip(*got, strict=True), 1, 2)
    for name, values in HostSteps(model, untimed).decode(*zip(*want, strict=True), 1, 2).items():
        np.testing.assert_array_equal(off(device, arrays[name]), values)
    assert "vq_lookup" in turing.launches
    assert not set(turing.launches) & set(launches.PRIOR)


class StagesOnTheHost(host_backend.ONNXRuntimeBackend):
    """A backend whose arrays are on the device, though its stages are not."""

    on_cpu = False

    def __init__(self, device) -> None:
        super().__init__(1)
        self.gpu = device

    def load(self, bundle, name):
        stage = super().load(bundle, name)

        def run(inputs):
            with self.gpu:
                outputs = stage(dict(zip(inputs, self.gpu.read(*inputs.values()), strict=True)))
                return {name: self.gpu.upload(values) for name, values in outputs.items()}

        return run

    def steps(self, bundle, timed):
        return GPUSteps(self.gpu, bundle.entropy, EntropyTables.from_bytes(bundle.entropy_bytes()), timed)


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(params=["fake", pytest.param("gpu", marks=helpers_gpu.ON_GPU)])
def codecs(request, toy_bundle, monkeypatch) -> tuple[dlf.Codec, dlf.Codec]:
    """One with all on the CPU, and one with the steps on the device."""
    fake = helpers_gpu.FakeGPU(EntropyTables.from_bytes((toy_bundle / "entropy.bin").read_bytes()))
    module = (
        helpers_gpu.install(monkeypatch, fake) if request.param == "fake" else importlib.import_module("dlf.runtime.gpu.device")
    )
    plain = dlf.Codec(toy_bundle, "onnxruntime", threads=1)
    monkeypatch.setattr(host_backend, "open_backend", lambda threads: StagesOnTheHost(module.Device()))
    return plain, dlf.Codec(toy_bundle, "onnxruntime", threads=1)


def test_files_and_pictures_are_those_of_the_cpu(codecs):
    plain, codec = codecs
    pictures = [photograph(*size) for size in [(20, 30), (300, 256), (256, 256), (1, 1)]]
    files = codec.encode_many(pictures)
    assert files == [plain.encode(picture) for picture in pictures]
    assert codec.encode(pictures[0]) == files[0]
    for got, data in zip(codec.decode_many(files), files, strict=True):
        np.testing.assert_array_equal(got, plain.decode(data))
    np.testing.assert_array_equal(codec.decode(files[1]), plain.decode(files[1]))


def test_pictures_go_in_and_come_out_on_the_device(codecs):
    plain, codec = codecs
    gpu, picture = codec.backend.gpu, photograph(40, 300)
    data = codec.encode(on(gpu, picture)[0])
    assert data == plain.encode(picture)
    np.testing.assert_array_equal(off(gpu, codec.decode(data, on_device=True)), plain.decode(data))
    (first, second) = codec.decode_many([data, data], on_device=True)
    np.testing.assert_array_equal(off(gpu, second), plain.decode(data))
    assert first.address != second.address


def test_limits_hold_for_pictures_on_the_device(codecs):
    codec = codecs[1]
    codec._limits = dlf.Limits(max_side=100)
    with pytest.raises(dlf.SizeLimitError):
        codec.encode(on(codec.backend.gpu, photograph(10, 101))[0])


def test_a_bad_stream_among_many_is_named_by_its_index(codecs):
    codec = codecs[1]
    codec._checksum = False
    good, other = codec.encode(photograph(10, 10)), codec.encode(photograph(300, 10))
    with pytest.raises(dlf.TrailingBytesError, match=r"^item 2: ") as refusal:
        codec.decode_many([good, other, good + b"x", other])
    assert refusal.value.index == 2
    with pytest.raises(dlf.TrailingBytesError) as refusal:
        codec.decode(good + b"x")
    assert refusal.value.index is None
