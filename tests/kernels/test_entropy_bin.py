import dataclasses
import struct

import numpy as np
import pytest
from helpers.entropy import random_tables

from dlf.kernels.entropy_bin import EntropyTables


@pytest.fixture
def tables() -> EntropyTables:
    return random_tables(np.random.default_rng(1), channels=4, entries=5, dim=3)


def test_bytes_come_back_as_the_same_tables(tables):
    again = EntropyTables.from_bytes(tables.to_bytes())
    for name in ("codebook", "thresholds", "q", "indexes", "means", "common"):
        there, back = getattr(tables, name), getattr(again, name)
        assert back.dtype == there.dtype
        np.testing.assert_array_equal(back, there)
    for there, back in zip(tables.frequencies, again.frequencies, strict=True):
        np.testing.assert_array_equal(back, there)
    for there, back in zip(tables.blocks, again.blocks, strict=True):
        for layer in ("conv1", "depth_conv", "conv2", "conv", "conv_out"):
            for part in ("w", "m", "b"):
                np.testing.assert_array_equal(getattr(getattr(back, layer), part), getattr(getattr(there, layer), part))


def test_fields_lie_where_the_format_says(tables):
    data = tables.to_bytes()
    assert data[:4] == b"DLFE"
    assert struct.unpack("<5I", data[4:24]) == (1, 4, 5, 3, 256)
    assert struct.unpack("<15f", data[24:84]) == tuple(tables.codebook.ravel())
    bounds = struct.unpack("<256H", data[84:596])
    assert bounds == tuple(len(f) // 2 - 1 for f in tables.frequencies)
    assert struct.unpack("<6H", data[596:608]) == tuple(tables.frequencies[0])
    # The last layer, conv_out of shared_2, has D = 8 outputs and 16 inputs.
    layer = tables.blocks[5].conv_out
    assert data[-64:] == struct.pack("<8q", *layer.b)
    assert data[-96:-64] == struct.pack("<8i", *layer.m)
    assert data[-224:-96] == struct.pack("128b", *layer.w.ravel())
    assert len(data) == 84 + 512 + sum(2 * len(f) for f in tables.frequencies) + 512 + 4 * 25 * (4 + 2 * 3) + 6 * (
        (64 + 72 + 64 + 256 + 128) + 12 * (8 + 8 + 8 + 32 + 8)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"XXXX" + data[4:], "magic"),
        (lambda data: data[:4] + b"\3" + data[5:], "version 3"),
        (lambda data: data[:-1], "cut short"),
        (lambda data: data[:10], "cut short"),
        (lambda data: data + b"\0", "1 bytes after"),
    ],
)
def test_from_bytes_refuses_another_layout(tables, damage, message):
    with pytest.raises(ValueError, match=message):
        EntropyTables.from_bytes(damage(tables.to_bytes()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"means": t.means[:, :4]}, "shape"),
        (lambda t: {"thresholds": t.thresholds[1:]}, "shape"),
        (lambda t: {"frequencies": (*t.frequencies[:-1], t.frequencies[-1][:-1])}, "shape"),
        (lambda t: {"means": np.full(t.means.shape, 40000)}, "int16"),
        (lambda t: {"means": t.means + 0.5}, "int16"),
        (lambda t: {"blocks": t.blocks[1:]}, "5 blocks"),
    ],
)
def test_to_bytes_refuses_what_the_format_cannot_hold(tables, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tables, **change(tables)).to_bytes()
