"""Every rule of entropy.bin has a file that breaks it."""

import dataclasses
import struct

import numpy as np
import pytest
from helpers.entropy import random_tables
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime import errors
from dlf.runtime.libdlf import EntropyModel


def tables(channels: int = 4) -> EntropyTables:
    return random_tables(np.random.default_rng(3), channels, entries=6, dim=3)


def patched(offset: int, value: int) -> bytes:
    """A file with another u32 at an offset of its header."""
    data = bytearray(tables().to_bytes())
    struct.pack_into("<I", data, offset, value)
    return bytes(data)


def with_value(name: str, value: float) -> bytes:
    """A file with one other value in one of its arrays."""
    changed = tables()
    getattr(changed, name).flat[-1] = value
    return changed.to_bytes()


def with_frequencies(*frequencies: list[int]) -> bytes:
    cdfs = tuple(np.array(f) for f in frequencies)
    changed = dataclasses.replace(tables(), frequencies=cdfs, thresholds=np.zeros(len(cdfs), np.int16))
    changed.indexes[:] = -1
    return changed.to_bytes()


def with_layer(layer: str, part: str, value: int) -> bytes:
    changed = tables()
    getattr(getattr(changed.blocks[5], layer), part).flat[-1] = value
    return changed.to_bytes()


def with_codebook(codebook: np.ndarray) -> bytes:
    return dataclasses.replace(tables(), codebook=codebook).to_bytes()


def with_weight_sum(total: int) -> bytes:
    """conv_out has 528 inputs at 132 channels; no layer of a smaller model reaches the overflow bound."""
    changed = tables(132)
    w = changed.blocks[0].conv_out.w
    w[0] = 0
    w[0, : total // 127] = -127
    w[0, -1] = total % 127
    return changed.to_bytes()


def with_tokens(last: list[int], entries: int = 6) -> bytes:
    """A file with frequencies of tokens, of which those of the last place are given."""
    rows = np.ones((32, entries), np.uint16)
    rows[:, 0] = min(65535, 65536 - (entries - 1))
    rows[-1] = last
    codebook = np.ones((entries, 1), np.float32)
    return dataclasses.replace(tables(), codebook=codebook, token_frequencies=rows).to_bytes()


FOREIGN = {
    "magic": lambda: b"DLFX" + tables().to_bytes()[4:],
    "version": lambda: patched(4, 3),
    "version 0": lambda: patched(4, 0),
}
BROKEN = {
    "no channels": lambda: patched(8, 0),
    "channels not a multiple of 4": lambda: tables(6).to_bytes(),
    "too many channels": lambda: patched(8, 1028),
    "no codebook": lambda: patched(12, 0),
    "codebook too large": lambda: with_codebook(np.ones((65537, 1), np.float32)),
    "no dimension": lambda: patched(16, 0),
    "dimension too large": lambda: with_codebook(np.full((1, 1025), 1025**-0.5, np.float32)),
    "no CDFs": lambda: patched(20, 0),
    "too many CDFs": lambda: with_frequencies(*[[1, 65535]] * 1025),
    "codebook not of unit vectors": lambda: with_codebook(np.full((2, 2), 0.72, np.float32)),
    "codebook not finite": lambda: with_value("codebook", np.nan),
    "codebook infinite": lambda: with_value("codebook", np.inf),
    "frequency 0": lambda: with_frequencies([0, 1, 32767, 32768]),
    "sum too small": lambda: with_frequencies([1, 1, 32767, 32766]),
    "sum too large": lambda: with_frequencies([1, 1, 32767, 32768]),
    "sum of another multiple of 65536": lambda: with_frequencies([32768, 32768, 32768, 32768]),
    "more symbols than slots": lambda: with_frequencies([1] * 65538),
    "thresholds not ascending": lambda: with_value("thresholds", -1),
    "q zero": lambda: with_value("q", 0),
    "q negative": lambda: with_value("q", -1),
    "q not a number": lambda: with_value("q", np.nan),
    "q infinite": lambda: with_value("q", np.inf),
    "index too small": lambda: with_value("indexes", -2),
    "index too large": lambda: with_value("indexes", 256),
    "multiplier negative": lambda: with_layer("conv1", "m", -1),
    "bias too large": lambda: with_layer("depth_conv", "b", 2**62 + 1),
    "bias too small": lambda: with_layer("conv_out", "b", -(2**62) - 1),
    "bias smallest of all": lambda: with_layer("conv", "b", -(2**63)),
    "accumulator may overflow": lambda: with_weight_sum(65536),
    "byte after the end": lambda: tables().to_bytes() + b"\0",
    "no frequencies of tokens, in version 2": lambda: patched(4, 2),
    "frequencies of tokens, in version 1": lambda: tables().to_bytes() + with_tokens([1, 1, 1, 1, 1, 65531])[-384:],
    "token of frequency 0": lambda: with_tokens([0, 1, 1, 1, 1, 65532]),
    "frequencies of tokens too small": lambda: with_tokens([1, 1, 1, 1, 1, 65530]),
    "frequencies of tokens too large": lambda: with_tokens([1, 1, 1, 1, 2, 65531]),
    "frequencies of tokens cut short": lambda: with_tokens([1, 1, 1, 1, 1, 65531])[:-1],
    "byte after the frequencies of tokens": lambda: with_tokens([1, 1, 1, 1, 1, 65531]) + b"\0",
    "frequencies of the only token": lambda: with_tokens([65535], entries=1),
}
ACCEPTED = {
    "equal thresholds": lambda: with_value("thresholds", 16384) and with_frequencies([1, 65535], [65535, 1]),
    "one codebook entry": lambda: with_codebook(np.ones((1, 1), np.float32)),
    "as many symbols as slots": lambda: with_frequencies([1] * 65536),
    "1024 CDFs": lambda: with_frequencies(*[[1, 65535]] * 1024),
    "largest dimension": lambda: with_codebook(np.full((1, 1024), 1024**-0.5, np.float32)),
    "smallest q": lambda: with_value("q", np.finfo(np.float32).smallest_subnormal),
    "largest index": lambda: with_value("indexes", 255),
    "largest multiplier": lambda: with_layer("conv1", "m", 2**31 - 1),
    "largest bias": lambda: with_layer("conv1", "b", 2**62),
    "smallest bias": lambda: with_layer("conv1", "b", -(2**62)),
    "accumulator at its bound": lambda: with_weight_sum(65535),
    "frequencies of tokens": lambda: with_tokens([1, 1, 1, 1, 1, 65531]),
    "as many tokens as slots": lambda: with_tokens([1] * 65536, entries=65536),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign(name):
    with pytest.raises(errors.BundleForeignError):
        EntropyModel(FOREIGN[name]())


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name):
    with pytest.raises(errors.BundleBrokenError):
        EntropyModel(BROKEN[name]())


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name):
    assert EntropyModel(ACCEPTED[name]()).channels % 4 == 0


def test_every_prefix_is_broken():
    data = tables().to_bytes()
    for end in (*range(300), *range(300, len(data), 97), len(data) - 1):
        with pytest.raises(errors.BundleBrokenError):
            EntropyModel(data[:end])


VALID = tables().to_bytes()


@given(st.lists(st.tuples(st.sampled_from([8, 12, 16, 20]), st.integers(0, 2**32 - 1)), min_size=1))
@settings(max_examples=200, deadline=None)
def test_any_other_header_is_broken(changes):
    """Whatever the counts promise, nothing is allocated that the file's size does not cover."""
    contents = bytearray(VALID)
    for offset, value in changes:
        struct.pack_into("<I", contents, offset, value)
    assume(contents != VALID)
    with pytest.raises(errors.BundleBrokenError):
        EntropyModel(bytes(contents))


def test_coded_tokens():
    assert not EntropyModel(tables().to_bytes()).coded_tokens
    assert EntropyModel(with_tokens([1, 1, 1, 1, 1, 65531])).coded_tokens


@pytest.mark.parametrize(("entries", "bits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (4096, 12), (4097, 13)])
def test_token_bits(entries, bits):
    codebook = np.ones((entries, 1), np.float32)
    model = EntropyModel(dataclasses.replace(tables(), codebook=codebook).to_bytes())
    assert (model.codebook_size, model.codebook_dim, model.token_bits) == (entries, 1, bits)
