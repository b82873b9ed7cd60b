"""A step's symbols: the NumPy reference against the C++ core and the specification's table, the kernels against the reference."""

import numpy as np
import pytest
from helpers import kernels as helpers_kernels
from helpers.entropy import random_tables
from numpy.typing import NDArray

from dlf.kernels import launches
from dlf.kernels import symbols_reference as reference
from dlf.kernels.entropy_bin import EntropyTables
from dlf.kernels.entropy_params_reference import entropy_params

UNSEEN = 12345  # what must not be read, or must stay
SHAPE = (2, 8, 10, 16)  # images, C, H, W
SIZES = launches.MapSizes(*SHAPE)


@pytest.fixture(scope="module")
def tables() -> EntropyTables:
    return random_tables(np.random.default_rng(0), SHAPE[1])


def empty_symbols(tables: EntropyTables) -> launches.Symbols:
    images, channels, height, width = SHAPE
    shape = (4, images, channels // 4, height, width)
    values = np.full(shape, UNSEEN, np.int32)
    return launches.Symbols(tables.indexes, tables.means, tables.q, values, values.astype(np.int16))


def empty_buffers(indexes: NDArray[np.int16] | None = None, means: NDArray[np.int16] | None = None) -> launches.Buffers:
    maps = [np.full(SHAPE, UNSEEN, np.int16) if each is None else each for each in (indexes, means)]
    return launches.Buffers(np.full(SHAPE, UNSEEN, np.int32), None, None, None, *maps)


def random_params(seed: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    rng = np.random.default_rng(seed)
    return rng.integers(-1, 256, SHAPE, np.int16), rng.integers(-4000, 4000, SHAPE, np.int16)


def where_coded(step: int) -> NDArray[np.bool_]:
    """(C, H, W)"""
    _, channels, height, width = SHAPE
    coded = np.zeros(SHAPE[1:], np.bool_)
    np.put_along_axis(coded, reference.coded_channels(step, channels, height, width), True, axis=0)
    return coded


def test_the_steps_code_each_value_once():
    assert (sum(where_coded(step).astype(int) for step in range(4)) == 1).all()


def test_the_reference_codes_the_cores_file(tables):
    """Quantised, coded and decoded with the reference's steps: the core's stream and its y_hat."""
    core = pytest.importorskip("dlf.runtime.libdlf")
    model = core.EntropyModel(tables.to_bytes())
    y = np.random.default_rng(1).normal(0, 6, SHAPE[1:]).astype(np.float32)
    stream, want = model.encode_detail_with_reconstruction(y)
    r, y_hat, symbols, coded = np.zeros(y.shape, np.int32), np.empty_like(y), [], []
    for step in range(4):
        indexes, means = entropy_params(tables, step, r)
        symbols.append(reference.quantise(tables, step, y, indexes, means))
        coded.append(reference.select(step, indexes))
        reference.update(tables, step, symbols[-1], means, r, y_hat)
    assert model.rans_encode(np.concatenate(symbols).ravel(), np.concatenate(coded).ravel()) == stream
    np.testing.assert_array_equal(y_hat, want)


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
def test_first_params(device, tables):
    _, got = helpers_kernels.run(
        device, helpers_kernels.call, "launch_first_params", empty_symbols(tables), empty_buffers(), sizes=SIZES
    )
    indexes, means = entropy_params(tables, 0, np.zeros(SHAPE[1:], np.int32))
    for image in range(SHAPE[0]):
        np.testing.assert_array_equal(got.indexes[image], np.where(where_coded(0), indexes, UNSEEN))
        np.testing.assert_array_equal(got.means[image], np.where(where_coded(0), means, UNSEEN))


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
@pytest.mark.parametrize("step", range(4))
def test_quantise(device, tables, step):
    indexes, means = random_params(step)
    y = np.random.default_rng(10 + step).normal(0, 20, SHAPE).astype(np.float32)
    y[0, :, :2] = [[np.inf] * 16, [-np.inf] * 16]
    y[0, :, 2:4] = [[1e30] * 16, [np.nan] * 16]
    means[1, :, 4:] = 128  # of halves: to even
    y[1] = (np.round(y[1]) * tables.q[:, 2:3, 2:3]).astype(np.float32)
    of, buffers, _ = helpers_kernels.run(
        device,
        helpers_kernels.call,
        "launch_quantise",
        empty_symbols(tables),
        empty_buffers(indexes, means),
        y,
        step=step,
        sizes=SIZES,
    )
    for image in range(SHAPE[0]):
        # The core takes what is not a number as the smallest symbol; it happens where 0/q is flushed to zero.
        numbers = np.where(np.isnan(y[image]), -np.inf, y[image])
        want = reference.quantise(tables, step, numbers, indexes[image], means[image])
        np.testing.assert_array_equal(of.symbols[step, image], want)
        np.testing.assert_array_equal(of.coded[step, image], reference.select(step, indexes[image]))
        r, y_hat = np.full(SHAPE[1:], UNSEEN, np.int32), np.zeros(SHAPE[1:], np.float32)
        reference.update(tables, step, want, means[image], r, y_hat)
        np.testing.assert_array_equal(buffers.r[image], r)
    others = [other for other in range(4) if other != step]
    assert (of.symbols[others] == UNSEEN).all() and (of.coded[others] == UNSEEN).all()


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
@pytest.mark.parametrize("step", range(4))
def test_select(device, tables, step):
    indexes, means = random_params(step)
    of, _ = helpers_kernels.run(
        device,
        helpers_kernels.call,
        "launch_select",
        empty_symbols(tables),
        empty_buffers(indexes, means),
        step=step,
        sizes=SIZES,
    )
    np.testing.assert_array_equal(of.coded[step], [reference.select(step, each) for each in indexes])
    assert (of.coded[[other for other in range(4) if other != step]] == UNSEEN).all()


@pytest.mark.parametrize("device", helpers_kernels.DEVICES)
@pytest.mark.parametrize("step", range(4))
def test_update(device, tables, step):
    _, means = random_params(step)
    of = empty_symbols(tables)
    size = reference.MAX_SYMBOL
    of.symbols[step] = np.random.default_rng(step).integers(-40, 40, of.symbols[step].shape)
    of.symbols[step, 0, :, :2] = [[size] * 16, [-size] * 16]
    y_hat = np.full(SHAPE, 0.5, np.float32)
    of, buffers, got = helpers_kernels.run(
        device, helpers_kernels.call, "launch_update", of, empty_buffers(means=means), y_hat, step=step, sizes=SIZES
    )
    for image in range(SHAPE[0]):
        r, want = np.full(SHAPE[1:], UNSEEN, np.int32), np.full(SHAPE[1:], 0.5, np.float32)
        reference.update(tables, step, of.symbols[step, image], means[image], r, want)
        np.testing.assert_array_equal(buffers.r[image], r)
        np.testing.assert_array_equal(got[image], want)
