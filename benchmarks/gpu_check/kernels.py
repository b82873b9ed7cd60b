"""Every kernel that comes with dlf, launched as the runtime launches it, against its NumPy reference, bit by bit.

python -m dlf.benchmarks.gpu_check.kernels [--small]
"""

import sys
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlf.benchmarks.gpu_check.device_arrays import builtin_tables, open_gpu, require_same
from dlf.benchmarks.gpu_check.findings import Findings, run_step
from dlf.benchmarks.gpu_check.tables import random_tables
from dlf.kernels import launches, symbols_reference
from dlf.kernels.entropy_bin import EntropyTables
from dlf.kernels.entropy_params_reference import entropy_params
from dlf.kernels.vq_lookup_reference import vq_scores
from dlf.runtime import images
from dlf.runtime.gpu.device import Device

STEPS = range(4)
# Channels of a latent for each padded width, and one that is padded.
CHANNELS = (16, 32, 64, 128, 20)
# (images, height, width) of maps: the smallest, a picture's of 768x512, odd tiles, a batch.
MAPS = ((1, 8, 8), (1, 16, 24), (1, 24, 8), (3, 8, 40))
PICTURES = ((1, 1), (255, 257), (256, 256), (40, 300), (517, 3))
# Two entries of a codebook may be nearly equally near: in float32 either is right.
NEARLY = 1e-6


def check_all(findings: Findings, gpu: Device, small: bool = False) -> None:
    """Check all kernels; with `small`, the fewest launches that reach each of them."""
    frequencies = builtin_tables().frequencies
    for channels in CHANNELS[:1] if small else CHANNELS:
        tables = random_tables(np.random.default_rng(channels), frequencies, channels, entries=300, dim=12)
        for shape in MAPS[:1] if small else MAPS:
            check_maps(findings, gpu, tables, shape)
    check_lookup(findings, gpu, random_tables(np.random.default_rng(0), frequencies, 16, entries=300, dim=12), 2 if small else 24)
    for size in PICTURES[:1] if small else PICTURES:
        check_pictures(findings, gpu, *size)
    findings.attempt("crop_pixels, all ties of rounding", partial(crop_ties, gpu))
    findings.attempt("check_finite", partial(finite, gpu))


@cache
def launcher(gpu: Device, width: int | None = None) -> launches.Launch:
    """Return what launches the kernels of a padded width, or those that have none; they are loaded once."""
    return gpu.kernels(width)


# ----------------------------------------------------------------------------------------------------------------- maps


def check_maps(findings: Findings, gpu: Device, tables: EntropyTables, shape: tuple[int, int, int]) -> None:
    """Check the prior's and the symbols' kernels on maps of (images, height, width)."""
    images_, height, width = shape
    sizes = launches.MapSizes(images_, len(tables.q), height, width)
    padded = launches.padded_width(sizes.channels)
    where = f"{sizes.channels} channels padded to {padded // 2}, {images_}x{height}x{width}"
    if gpu.capability >= (8, 0):  # Triton has no int8 products for older ones
        for step in STEPS[1:]:
            findings.attempt(f"prior, step {step}, {where}", partial(prior, gpu, tables, sizes, step))
    findings.attempt(f"first_params, {where}", partial(first_params, gpu, tables, sizes))
    for step in STEPS:
        findings.attempt(f"quantise and select, step {step}, {where}", partial(quantise, gpu, tables, sizes, step))
        findings.attempt(f"update, step {step}, {where}", partial(update, gpu, tables, sizes, step))


def prior(gpu: Device, tables: EntropyTables, sizes: launches.MapSizes, step: int) -> str:
    """Compare CDF indexes and means of a step of the prior."""
    r = _rng(step).integers(-9000, 9000, _shape(sizes)).astype(np.int32)
    packed = launches.pack_prior(tables)
    with gpu:
        arrays: dict[str, Any] = {name: gpu.upload(value) for name, value in vars(packed).items() if name != "d"}
        weights = launches.PriorWeights(packed.d, **arrays)
        scratch = [gpu.empty((sizes.images, sizes.height * sizes.width, packed.d), np.int16) for _ in range(3)]
        outputs = [gpu.empty(r.shape, np.int16) for _ in range(2)]
        buffers = launches.Buffers(gpu.upload(r), *scratch, *outputs)
        launches.launch_entropy_params(launcher(gpu, packed.d), weights, buffers, sizes, step)
        found = gpu.read(*outputs)
    wanted = zip(*(entropy_params(tables, step, each) for each in r), strict=True)
    require_same(*((got, np.stack(want)) for got, want in zip(found, wanted, strict=True)))
    return "the same"


def first_params(gpu: Device, tables: EntropyTables, sizes: launches.MapSizes) -> str:
    """Compare CDF indexes and means of step 0, where it codes."""
    with _Maps(gpu, tables, sizes) as maps:
        launches.launch_first_params(maps.launch, maps.symbols, maps.buffers, sizes)
        found = gpu.read(maps.buffers.indexes, maps.buffers.means)
    wanted = entropy_params(tables, 0, np.zeros(_shape(sizes)[1:], np.int32))
    for got, want in zip(found, wanted, strict=True):
        require_same(*((symbols_reference.select(0, each), symbols_reference.select(0, want)) for each in got))
    return "the same"


def quantise(gpu: Device, tables: EntropyTables, sizes: launches.MapSizes, step: int) -> str:
    """Compare a step's symbols, CDF indexes and r, for values of all kinds: halves, huge, infinite."""
    rng = _rng(10 + step)
    y = rng.normal(0, 20, _shape(sizes)).astype(np.float32)
    y[:, :, 0, :3] = np.inf, -np.inf, 1e30
    indexes, means = _params(tables, sizes, rng)
    means[:, :, 4:] = 128  # so that whole multiples of q are halves, which round to even
    y[:, :, 4:] = np.round(y[:, :, 4:]) * tables.q[:, 2:3, 2:3]
    with _Maps(gpu, tables, sizes, indexes, means) as maps:
        launches.launch_quantise(maps.launch, maps.symbols, maps.buffers, gpu.upload(y), sizes, step)
        symbols, coded, r = gpu.read(maps.symbols.symbols, maps.symbols.coded, maps.buffers.r)
        launches.launch_select(maps.launch, maps.symbols, maps.buffers, sizes, step)
        (selected,) = gpu.read(maps.symbols.coded)
    for image in range(sizes.images):
        want = symbols_reference.quantise(tables, step, y[image], indexes[image], means[image])
        want_r, want_coded = np.zeros(r.shape[1:], np.int32), symbols_reference.select(step, indexes[image])
        symbols_reference.update(tables, step, want, means[image], want_r, np.zeros_like(y[image]))
        require_same((symbols[step, image], want), (coded[step, image], want_coded), (selected[step, image], want_coded))
        at = symbols_reference.coded_channels(step, sizes.channels, sizes.height, sizes.width)
        require_same((np.take_along_axis(r[image], at, 0), np.take_along_axis(want_r, at, 0)))
    return "the same"


def update(gpu: Device, tables: EntropyTables, sizes: launches.MapSizes, step: int) -> str:
    """Compare r and y_hat of a step's symbols, the largest among them."""
    rng = _rng(20 + step)
    indexes, means = _params(tables, sizes, rng)
    y_hat = np.full(_shape(sizes), 0.5, np.float32)
    symbols = rng.integers(-40, 40, (4, sizes.images, sizes.channels // 4, sizes.height, sizes.width)).astype(np.int32)
    symbols[step, :, :, 0, :2] = symbols_reference.MAX_SYMBOL, -symbols_reference.MAX_SYMBOL
    with _Maps(gpu, tables, sizes, indexes, means) as maps:
        gpu.write(maps.symbols.symbols, symbols)
        gpu.write(maps.buffers.r, np.zeros(_shape(sizes), np.int32))
        there = gpu.upload(y_hat)
        launches.launch_update(maps.launch, maps.symbols, maps.buffers, there, sizes, step)
        r, got = gpu.read(maps.buffers.r, there)
    for image in range(sizes.images):
        want_r, want = np.zeros(r.shape[1:], np.int32), y_hat[image].copy()
        symbols_reference.update(tables, step, symbols[step, image], means[image], want_r, want)
        require_same((r[image], want_r), (got[image], want))
    return "the same"


class _Maps:
    """Arrays on the GPU for a step, and what launches its kernels, while the GPU is entered."""

    def __init__(
        self,
        gpu: Device,
        tables: EntropyTables,
        sizes: launches.MapSizes,
        indexes: NDArray[np.int16] | None = None,
        means: NDArray[np.int16] | None = None,
    ) -> None:
        self._gpu = gpu
        shape = _shape(sizes)
        with gpu:
            self.launch = launcher(gpu)
            steps = (4, sizes.images, sizes.channels // 4, sizes.height, sizes.width)
            self.symbols = launches.Symbols(
                gpu.upload(tables.indexes),
                gpu.upload(tables.means),
                gpu.upload(tables.q),
                gpu.empty(steps, np.int32),
                gpu.empty(steps, np.int16),
            )
            maps = [gpu.upload(np.zeros(shape, np.int16) if each is None else each) for each in (indexes, means)]
            self.buffers = launches.Buffers(gpu.empty(shape, np.int32), None, None, None, *maps)

    def __enter__(self) -> "_Maps":
        self._gpu.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._gpu.__exit__(*error)


def _shape(sizes: launches.MapSizes) -> tuple[int, int, int, int]:
    return sizes.images, sizes.channels, sizes.height, sizes.width


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _params(
    tables: EntropyTables, sizes: launches.MapSizes, rng: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    indexes = rng.integers(-1, len(tables.thresholds), _shape(sizes)).astype(np.int16)
    return indexes, rng.integers(-2000, 2000, _shape(sizes)).astype(np.int16)


# --------------------------------------------------------------------------------------------------------------- tokens


def check_lookup(findings: Findings, gpu: Device, tables: EntropyTables, tiles: int) -> None:
    """Check the codebook look-up on so many tiles."""
    findings.attempt(f"vq_lookup, {tiles} tiles", partial(lookup, gpu, tables, tiles))


def lookup(gpu: Device, tables: EntropyTables, tiles: int) -> str:
    """Compare tokens; one whose cosine is within `NEARLY` of the best is right too."""
    entries, dim = tables.codebook.shape
    z = (_rng(1).normal(size=(tiles, dim, 32)) * 10.0 ** _rng(2).uniform(-20, 20, (tiles, 1, 32))).astype(np.float32)
    with gpu:
        codebook = launches.Codebook(gpu.upload(np.ascontiguousarray(tables.codebook.T)), entries, dim)
        tokens = gpu.empty((tiles, 32), np.uint16)
        launches.launch_vq_lookup(launcher(gpu), codebook, gpu.upload(z), tokens, tiles)
        (found,) = gpu.read(tokens)
    scores = vq_scores(tables.codebook, z)
    got = np.take_along_axis(scores, found[:, None].astype(np.intp), 1)[:, 0]
    worst = float((scores.max(axis=1) - got).max())
    if worst > NEARLY:
        raise AssertionError(f"a token is farther from the nearest than it may be, by {worst:.1e} of a cosine")
    return f"{np.mean(found == scores.argmax(axis=1)):.2%} the same, the others nearly as near"


# ------------------------------------------------------------------------------------------------------------- pictures


def check_pictures(findings: Findings, gpu: Device, height: int, width: int) -> None:
    """Check padding and cropping of a picture of this size."""
    findings.attempt(f"pad_pixels, {width}x{height}", partial(pad, gpu, height, width))
    image = _rng(width).normal(0, 0.8, (3, *images.pad_to_tiles(np.zeros((height, width, 3), np.uint8)).shape[2:]))
    findings.attempt(f"crop_pixels, {width}x{height}", partial(crop, gpu, image.astype(np.float32), height, width))


def pad(gpu: Device, height: int, width: int) -> str:
    """Compare a padded picture."""
    pixels = _rng(height).integers(0, 256, (height, width, 3), np.uint8)
    want = images.pad_to_tiles(pixels)[0]
    with gpu:
        image = gpu.empty(want.shape, np.float32)
        sizes = launches.PictureSizes(height, width, *want.shape[1:])
        launches.launch_pad_pixels(launcher(gpu), gpu.upload(pixels), image, sizes)
        (got,) = gpu.read(image)
    require_same((got, want))
    return "the same"


def crop(gpu: Device, image: NDArray[np.float32], height: int, width: int) -> str:
    """Compare a cropped picture of an image (3, H, W)."""
    with gpu:
        pixels = gpu.empty((height, width, 3), np.uint8)
        sizes = launches.PictureSizes(height, width, *image.shape[1:])
        launches.launch_crop_pixels(launcher(gpu), gpu.upload(image), pixels, sizes)
        (got,) = gpu.read(pixels)
    with np.errstate(invalid="ignore", over="ignore"):
        want = images.crop_to_pixels(image[None], height, width)
    require_same((got, want))
    return "the same"


def crop_ties(gpu: Device) -> str:
    """Compare the levels of all values that are halfway between two, and of their neighbours, and of values beyond the range."""
    values = np.array(list(_near_ties()), np.float32)
    height = -(-len(values) // 256)
    image = np.zeros((3, height, 256), np.float32)
    image[:] = np.resize(values, (height, 256))
    return f"{len(values)} values, {crop(gpu, image, height, 256)}"


def _near_ties() -> Iterator[np.float32]:
    for level in range(-1, 256):
        value = np.float32((level + 0.5) / 127.5 - 1)
        for direction in (-np.inf, np.inf):
            near = value
            for _ in range(8):
                yield near
                near = np.nextafter(near, np.float32(direction))
    yield from map(np.float32, (-np.inf, np.inf, -1, 1, -3e38, 3e38, 0.0, -0.0))


def finite(gpu: Device) -> str:
    """Compare what is found not to be finite."""
    for value, flag in ((np.inf, 1), (-np.inf, 1), (np.nan, 1), (np.finfo(np.float32).max, 0), (1e-45, 0)):
        values = np.zeros((2, 1000), np.float32)
        values[1, -1] = value
        with gpu:
            found = gpu.upload(np.zeros(4, np.int32))
            launches.launch_check_finite(launcher(gpu), gpu.upload(values), found, 2, values.shape[1])
            got = int(gpu.read(found)[0][0])
        if got != flag:
            raise AssertionError(f"{value} is found to be {'not ' * got}finite")
    return "the same"


def main(arguments: list[str]) -> int:
    """Run the step."""
    return run_step(lambda findings: check_all(findings, open_gpu(), small="--small" in arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
