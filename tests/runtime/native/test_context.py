"""Contexts: buffers, memory, limits and refusals, with stages of a few lines that need no backend's library."""

import ctypes
from ctypes import byref, c_size_t, c_uint32, c_void_p
from pathlib import Path

import numpy as np
import pytest
from helpers.bundle import CHANNELS, DIM
from helpers.native import LIB, Allocate, Allocator, Arrays, Backend, Context, Free, Image, Limits, Model, image_of
from numpy.typing import NDArray

import dlf
from dlf.runtime import errors

INVALID_ARGUMENT, TOO_SMALL = 1, 3
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)


def stages(name: str, file: Path) -> object:
    """Stages whose latent holds only an image's upper left 8x8 blocks of 32 pixels."""

    def analysis(inputs: Arrays) -> Arrays:
        _, _, height, width = inputs["image"].shape
        y = np.zeros((1, CHANNELS, height // 32, width // 32), np.float32)
        y[:, :3] = 32 * inputs["image"][:, :, ::32, ::32]
        z = np.ones((1, height // 256, width // 256, DIM, 32), np.float32)
        return {"y": y, "z": z}

    def generator(inputs: Arrays) -> Arrays:
        return {"image": inputs["latent"][:, :3].repeat(32, 2).repeat(32, 3) / 32}

    return {
        "analysis": analysis,
        "synthesis": lambda inputs: {"semantic": inputs["z_hat"], "detail": inputs["y_hat"]},
        "adaptor": lambda inputs: {"latent": inputs["detail"]},
        "generator": generator,
    }[name]


@pytest.fixture
def backend() -> Backend:
    return Backend(stages)


@pytest.fixture
def model(toy_bundle: Path, backend: Backend) -> Model:
    return Model(toy_bundle, backend=backend.pointer())


@pytest.fixture
def context(model: Model) -> Context:
    return Context(model)


# ------------------------------------------------------------------------------------------------- buffers


def encode_into(context: Context, buffer: NDArray[np.uint8]) -> tuple[int, int]:
    size = c_size_t(buffer.size)
    result = LIB.dlf_encode_into(context.handle, byref(image_of(IMAGE)), None, c_void_p(buffer.ctypes.data), byref(size))
    return result, size.value


def test_encode_into_tells_the_size_and_fills_a_buffer_of_it(context):
    data = context.encode(IMAGE)
    assert encode_into(context, np.zeros(0, np.uint8)) == (TOO_SMALL, len(data))
    small = np.full(len(data) - 1, 7, np.uint8)
    assert encode_into(context, small) == (TOO_SMALL, len(data))
    assert (small == 7).all()
    buffer = np.full(len(data) + 5, 7, np.uint8)
    assert encode_into(context, buffer) == (0, len(data))
    assert buffer[: len(data)].tobytes() == data
    assert (buffer[len(data) :] == 7).all()


@pytest.mark.parametrize("values", ["zero", "escapes"])
def test_no_file_exceeds_the_bound(toy_bundle, values):
    def load(name: str, file: Path) -> object:
        def analysis(inputs: Arrays) -> Arrays:
            latents = stages("analysis", file)(inputs)  # type: ignore[operator]
            y = np.zeros_like(latents["y"]) if values == "zero" else RNG.choice(np.float32([-1e9, 1e9]), latents["y"].shape)
            return {**latents, "y": y}

        return analysis

    backend = Backend(load)
    model = Model(toy_bundle, backend=backend.pointer())
    for height, width in [(1, 1), (257, 255)]:
        size = len(Context(model).encode(np.zeros((height, width, 3), np.uint8)))
        bound = LIB.dlf_encode_bound(model.handle, c_uint32(width), c_uint32(height))
        assert size <= bound
        assert values == "zero" or size > bound / 2  # so the bound is of the right order


def test_bound_of_what_no_file_can_hold_is_0(model):
    for width, height in [(0, 1), (1, 0), (2**21 + 1, 1)]:
        assert LIB.dlf_encode_bound(model.handle, c_uint32(width), c_uint32(height)) == 0
    assert LIB.dlf_encode_bound(None, c_uint32(1), c_uint32(1)) == 0


def decode_into(context: Context, data: bytes, image: Image, capacity: int) -> int:
    result: int = LIB.dlf_decode_into(context.handle, data, c_size_t(len(data)), byref(image), c_size_t(capacity))
    return result


def test_decode_into_tells_the_size_without_running_a_stage(context, backend):
    data = context.encode(IMAGE)
    backend.names.clear()
    image = Image()
    assert decode_into(context, data, image, 0) == TOO_SMALL
    assert (image.width, image.height, image.stride) == (40, 30, 120)
    assert backend.names == []


@pytest.mark.parametrize("stride", [0, 120, 131])
def test_decode_into_fills_rows_and_nothing_else(context, stride):
    data = context.encode(IMAGE)
    due = context.decode(data)
    step = stride or 120
    buffer = np.full((30, step), 7, np.uint8)
    image = Image(stride=stride, pixels=buffer.ctypes.data)
    enough = 29 * step + 120
    assert decode_into(context, data, image, enough - 1) == TOO_SMALL
    assert (buffer == 7).all()
    assert decode_into(context, data, image, enough) == 0
    np.testing.assert_array_equal(buffer[:, :120].reshape(30, 40, 3), due)
    assert (buffer[:, 120:] == 7).all()


@pytest.mark.parametrize(("changes", "fact"), [({"format": 1}, "RGB8"), ({"format": 9}, "RGB8"), ({"stride": 119}, "is 119")])
def test_decode_into_refuses_what_is_no_picture_of_its_own(context, changes, fact):
    data = context.encode(IMAGE)
    buffer = np.zeros(4000, np.uint8)
    image = Image(**{"stride": 120, "pixels": buffer.ctypes.data, **changes})
    assert decode_into(context, data, image, buffer.size) == errors.ImageError.code
    assert fact in LIB.dlf_context_message(context.handle).decode()


@pytest.mark.parametrize("stride", [2**64 - 1, 2**63, 2**64 // 29])
def test_stride_that_would_overflow_is_too_large_for_any_buffer(context, stride):
    data = context.encode(IMAGE)
    buffer = np.zeros(4000, np.uint8)
    assert decode_into(context, data, Image(stride=stride, pixels=buffer.ctypes.data), buffer.size) == TOO_SMALL


@pytest.mark.parametrize(
    ("changes", "fact"),
    [({"width": 0}, "no pixels"), ({"height": 0}, "no pixels"), ({"format": 2}, "format 2"), ({"stride": 119}, "stride is 119")],
)
def test_encode_refuses_what_is_no_picture(context, changes, fact):
    image = image_of(IMAGE)
    for name, value in changes.items():
        setattr(image, name, value)
    out, size = c_void_p(1), c_size_t(2)
    assert LIB.dlf_encode(context.handle, byref(image), None, byref(out), byref(size)) == errors.ImageError.code
    assert fact in LIB.dlf_context_message(context.handle).decode()
    assert (out.value, size.value) == (1, 2)


# -------------------------------------------------------------------------------------------- memory and limits


class Counted:
    """An allocator over the C library's, which can be made to fail."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.libc = ctypes.CDLL(None)
        self.libc.aligned_alloc.restype = c_void_p
        self.live: dict[int, int] = {}
        self.calls, self.peak, self.fail_at = 0, 0, fail_at
        self.table = Allocator(allocate=Allocate(self.allocate), release=Free(self.release))

    def allocate(self, user: int, size: int, alignment: int) -> int | None:
        assert size > 0
        assert alignment in (1, 2, 4, 8, 16, 32, 64)
        self.calls += 1
        if self.calls - 1 == self.fail_at:
            return None
        address: int = self.libc.aligned_alloc(c_size_t(64), c_size_t(-(-size // 64) * 64))
        self.live[address] = size
        self.peak = max(self.peak, sum(self.live.values()))
        return address

    def release(self, user: int, address: int, size: int) -> None:
        assert self.live.pop(address) == size
        self.libc.free(c_void_p(address))


def test_allocator_gives_all_memory_and_gets_it_back(model):
    counted = Counted()
    context = Context(model, allocator=ctypes.pointer(counted.table))
    data = context.encode(IMAGE)
    context.decode(data)
    assert counted.peak > 3 * 256 * 256 * 4  # at least the padded batch
    calls = counted.calls
    assert context.encode(IMAGE) == data
    context.decode(data)
    assert counted.calls == calls  # what was taken is kept for the next image
    context.close()
    assert counted.live == {}


def test_every_allocation_may_fail(model):
    data = Context(model).encode(IMAGE)
    due = Context(model).decode(data)
    for fail_at in range(100):
        counted = Counted(fail_at)
        context = Context(model, allocator=ctypes.pointer(counted.table))
        refused = 0
        for call in (lambda c=context: c.encode(IMAGE), lambda c=context: c.decode(data)):
            try:
                call()
            except errors.OutOfMemoryError:
                refused += 1
                assert counted.live == {}
        assert refused == (counted.calls > fail_at)
        assert context.encode(IMAGE) == data
        np.testing.assert_array_equal(context.decode(data), due)
        context.close()
        assert counted.live == {}
        if not refused:
            break
    assert 5 < fail_at < 99


def test_memory_limit_is_kept(model):
    counted = Counted()
    Context(model, allocator=ctypes.pointer(counted.table)).encode(IMAGE)
    enough = Context(model, max_memory=counted.peak)
    assert enough.encode(IMAGE) == Context(model).encode(IMAGE)
    short = Context(model, max_memory=counted.peak - 1)
    with pytest.raises(errors.OutOfMemoryError, match=rf"limit of {counted.peak - 1} bytes; raise max_memory"):
        short.encode(IMAGE)


@pytest.mark.parametrize("limits", [{"max_pixels": 1199, "max_side": 40}, {"max_pixels": 1200, "max_side": 39}])
def test_size_limits_hold_for_encoding_and_decoding(model, limits):
    data = Context(model).encode(IMAGE)
    strict = Context(model, limits=ctypes.pointer(Limits(**limits)))
    for call in (lambda: strict.encode(IMAGE), lambda: strict.decode(data)):
        with pytest.raises(dlf.SizeLimitError, match="40x30"):
            call()
    exact = Context(model, limits=ctypes.pointer(Limits(max_pixels=1200, max_side=40)))
    assert exact.encode(IMAGE) == data


def test_default_limits_are_the_documented_ones(model):
    context = Context(model)
    for height, width in [(1, 16385), (8193, 8192)]:
        image = Image(width=width, height=height, pixels=1)
        out, size = c_void_p(), c_size_t()
        refusal = LIB.dlf_encode(context.handle, byref(image), None, byref(out), byref(size))
        assert refusal == errors.SizeLimitError.code


# ------------------------------------------------------------------------------------------------ refusals


def damaged(data: bytes, offset: int, value: int) -> bytes:
    return data[:offset] + bytes([value]) + data[offset + 1 :]


@pytest.fixture(scope="module")
def python(toy_bundle: Path) -> dlf.Codec:
    pytest.importorskip("onnxruntime")
    return dlf.Codec(toy_bundle, "onnxruntime", threads=1)


def assert_refused_alike(context: Context, python: dlf.Codec, data: bytes) -> type[dlf.DLFError]:
    with pytest.raises(dlf.DLFError) as native:
        context.decode(data)
    with pytest.raises(type(native.value)) as due:
        python.decode(data)
    assert due.type is native.type
    assert len(str(native.value)) > 20  # says more than the result's name
    return native.type


def test_damaged_files_are_refused_as_python_does(context, python):
    data, bare = context.encode(IMAGE), context.encode(IMAGE, checksum=False)
    files = [
        b"",
        b"GIF89a",
        bytes([0xDF]),
        data[:6],
        data[:20],
        data + b"\0",
        bare + b"\0",
        bare[:-1],
        damaged(data, 1, data[1] + 0x80),
        damaged(bare, 1, bare[1] & 0xF0 | 4),
        damaged(bare, 2, bare[2] ^ 1),
        damaged(bare, len(bare) - 1, bare[-1] ^ 0x55),
        damaged(bare, 6 + 24 + 3, 0xFF),
        bytes([0xDF, 0x25, 0, 0, 0x80, 0x80, 0x80]),
        bytes([0xDF, 0x25, 0, 0, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0x7F]),
    ]
    kinds = {assert_refused_alike(context, python, file) for file in files}
    assert kinds >= {
        dlf.NotDLFError,
        dlf.UnsupportedVersionError,
        dlf.TruncatedError,
        dlf.TrailingBytesError,
        dlf.ChecksumError,
        dlf.SizeLimitError,
        dlf.TokensMissingError,
        dlf.WrongModelError,
    }


def test_token_outside_the_codebook_is_refused(tmp_path, backend):
    from helpers.bundle import make_toy_bundle

    context = Context(Model(make_toy_bundle(tmp_path / "odd", entries=40), backend=backend.pointer()))
    bare = context.encode(IMAGE, checksum=False)
    with pytest.raises(dlf.StreamCorruptError, match="codebook of 40"):
        context.decode(damaged(bare, 6, bare[6] | 0xFC))  # the first token becomes 63


def test_message_is_of_the_last_call(context):
    with pytest.raises(dlf.NotDLFError, match="0x47"):
        context.decode(b"GIF89a")
    context.encode(IMAGE)
    assert LIB.dlf_context_message(context.handle) == b""


def test_a_null_or_a_small_struct_is_an_invalid_argument(model, context):
    out, size, image, pixels = c_void_p(), c_size_t(), Image(), image_of(IMAGE)
    data = context.encode(IMAGE)
    small = image_of(IMAGE)
    small.struct_size -= 1
    handle, length = context.handle, c_size_t(len(data))
    calls = [
        LIB.dlf_model_open(b"x", None, None),
        LIB.dlf_model_get_info(None, byref(out)),
        LIB.dlf_context_create(None, None, byref(out)),
        LIB.dlf_context_create(model.handle, None, None),
        LIB.dlf_context_prepare(None, c_uint32(1)),
        LIB.dlf_context_prepare(handle, c_uint32(0)),
        LIB.dlf_context_prepare(handle, c_uint32(4)),
        LIB.dlf_encode(None, byref(pixels), None, byref(out), byref(size)),
        LIB.dlf_encode(handle, None, None, byref(out), byref(size)),
        LIB.dlf_encode(handle, byref(small), None, byref(out), byref(size)),
        LIB.dlf_encode(handle, byref(Image(width=1, height=1)), None, byref(out), byref(size)),
        LIB.dlf_encode(handle, byref(pixels), None, None, byref(size)),
        LIB.dlf_encode_into(handle, byref(pixels), None, None, None),
        LIB.dlf_encode_into(handle, byref(pixels), None, None, byref(c_size_t(1))),
        LIB.dlf_decode(handle, None, length, byref(image)),
        LIB.dlf_decode(handle, data, length, None),
        LIB.dlf_decode(handle, data, length, byref(small)),
        LIB.dlf_decode_into(handle, data, length, byref(image), c_size_t(1)),
    ]
    assert calls == [INVALID_ARGUMENT] * len(calls)
    assert LIB.dlf_context_message(handle) == b"an argument is out of its range"
    for options in ({"max_pixels": 1}, {"max_side": 1}):
        limits = Limits(**options)
        limits.struct_size = 8
        with pytest.raises(errors.InvalidArgumentError):
            Context(model, limits=ctypes.pointer(limits))
    with pytest.raises(errors.InvalidArgumentError):
        Context(model, allocator=ctypes.pointer(Allocator()))


def test_nothing_is_done_to_free_null():
    LIB.dlf_model_free(None)
    LIB.dlf_context_free(None)
    LIB.dlf_free(None)


# ------------------------------------------------------------------------------------------------- backends


def test_prepare_loads_what_is_asked_for(context, backend):
    context.prepare(1)
    assert backend.names == ["analysis"]
    context.prepare(3)
    assert backend.names == ["analysis", "synthesis", "adaptor", "generator"]


def test_stages_are_loaded_when_needed_and_once_a_model(model, backend):
    data = Context(model).encode(IMAGE)
    assert backend.names == ["analysis"]
    for _ in range(2):
        Context(model).decode(data)
    assert backend.names == ["analysis", "synthesis", "adaptor", "generator"]
    assert backend.runs == {}


def test_low_memory_keeps_no_stage(toy_bundle, backend):
    lean = Context(Model(toy_bundle, backend=backend.pointer(), low_memory=1))
    data = lean.encode(IMAGE)
    assert backend.loaded == {}
    lean.decode(data)
    lean.encode(IMAGE)
    assert backend.names == ["analysis", "synthesis", "adaptor", "generator", "analysis"]
    assert (backend.loaded, backend.runs) == ({}, {})


@pytest.mark.parametrize("whole_generator", [False, True])  # True of backends on a GPU, whose stages stay
def test_no_stage_is_kept_after_a_large_image(toy_bundle, whole_generator):
    backend = Backend(stages, whole_generator=whole_generator)
    context = Context(Model(toy_bundle, backend=backend.pointer()))
    small = context.encode(IMAGE)
    assert len(backend.loaded) == 1
    large = context.encode(np.zeros((1024, 1024, 3), np.uint8))
    assert len(backend.loaded) == whole_generator
    assert context.decode(large).shape == (1024, 1024, 3)
    assert len(backend.loaded) == 4 * whole_generator
    assert context.encode(IMAGE) == small
    assert backend.runs == {}


def test_contexts_outlive_their_model(model, backend):
    context = Context(model)
    data = context.encode(IMAGE)
    model.close()
    assert context.encode(IMAGE) == data
    assert len(backend.loaded) == 1
    context.close()
    assert backend.loaded == {}


def refusing(at: str, error: dlf.DLFError) -> Backend:
    """A backend whose analysis stage fails when it is loaded or run."""

    def fail(*_: object) -> Arrays:
        raise error

    return Backend(fail if at == "load" else lambda name, file: fail)


def test_backend_that_loads_nothing_of_a_damaged_stage_passes_on_the_bundles_reason(bundle_copy, backend):
    (bundle_copy / "analysis.onnx").write_bytes(b"changed")
    model = Model(bundle_copy, backend=backend.pointer())
    with pytest.raises(dlf.BundleBrokenError, match=rf"^Bundle {bundle_copy}: analysis\.onnx has 7 bytes"):
        Context(model).encode(IMAGE)
    assert backend.loaded == {}


@pytest.mark.parametrize("at", ["load", "run"])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (dlf.OutOfMemoryError("no room"), dlf.OutOfMemoryError),
        (dlf.BundleBrokenError("odd stage"), dlf.BundleBrokenError),
        (dlf.BackendFailedError("on fire"), dlf.BackendFailedError),
        (dlf.ChecksumError("a result of its own"), dlf.BackendFailedError),
    ],
)
def test_what_a_backend_refuses_reaches_the_application(toy_bundle, at, error, kind):
    backend = refusing(at, error)
    model = Model(toy_bundle, backend=backend.pointer())
    context = Context(model)
    with pytest.raises(kind, match=rf"own could not {at} stage analysis \({error}\)") as refusal:
        context.encode(IMAGE)
    assert refusal.type is kind
    model.close()
    context.close()
    assert (backend.loaded, backend.runs) == ({}, {})


@pytest.mark.parametrize(
    ("outputs", "kind", "fact"),
    [
        ({}, dlf.BundleBrokenError, r"gives nothing as z, not \(1, 1, 1, 4, 32\)"),
        ({"z": np.zeros((1, 1, 1, 4, 31))}, dlf.BundleBrokenError, r"gives \(1, 1, 1, 4, 31\) as z"),
        ({"z": np.zeros((1, 1, 4, 32))}, dlf.BundleBrokenError, r"gives \(1, 1, 4, 32\) as z"),
        ({"z": np.full((1, 1, 1, 4, 32), np.nan)}, dlf.BackendFailedError, "not finite as z, on own"),
        ({"z": np.ones((1, 1, 1, 4, 32)), "y": np.full((1, 8, 8, 8), np.inf)}, dlf.BackendFailedError, "not finite as y"),
    ],
)
def test_outputs_that_the_codec_cannot_take_are_refused(toy_bundle, outputs, kind, fact):
    backend = Backend(lambda name, file: lambda inputs: outputs)
    with pytest.raises(kind, match=fact):
        Context(Model(toy_bundle, backend=backend.pointer())).encode(IMAGE)
    assert backend.runs == {}


def test_picture_that_is_not_finite_is_refused(toy_bundle):
    def load(name: str, file: Path) -> object:
        if name == "generator":
            return lambda inputs: {"image": np.full((1, 3, 256, 256), np.nan)}
        return stages(name, file)

    backend = Backend(load)
    context = Context(Model(toy_bundle, backend=backend.pointer()))
    with pytest.raises(dlf.BackendFailedError, match="not finite as image"):
        context.decode(context.encode(IMAGE))


def test_every_byte_level_becomes_what_numpy_computes(toy_bundle):
    """Every 8-bit level on its way in, and floats around every rounding on their way out."""
    seen: list[np.ndarray] = []
    values = np.concatenate([np.linspace(-1.1, 1.1, 40_000), (np.arange(0, 512) / 255) - 1]).astype(np.float32)
    picture = np.resize(values, (1, 3, 256, 256))

    def load(name: str, file: Path) -> object:
        def analysis(inputs: Arrays) -> Arrays:
            seen.append(inputs["image"])
            return stages("analysis", file)(inputs)  # type: ignore[operator]

        if name == "generator":
            return lambda inputs: {"image": picture}
        return analysis if name == "analysis" else stages(name, file)

    backend = Backend(load)
    context = Context(Model(toy_bundle, backend=backend.pointer()))
    image = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    full = np.pad(image, ((0, 240), (0, 240), (0, 0)), mode="edge")
    decoded = context.decode(context.encode(full))
    due = np.clip(np.rint((picture[0].transpose(1, 2, 0) / 2 + np.float32(0.5)) * 255), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(decoded, due)
    context.encode(image)
    for batch in seen:
        levels = full.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255) * np.float32(2) - np.float32(1)
        np.testing.assert_array_equal(batch, levels)
