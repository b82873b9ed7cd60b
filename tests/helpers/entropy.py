"""Entropy models for tests, all with the reference coder's CDFs, and a second implementation of the coder."""

import dataclasses
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlf.benchmarks.gpu_check import tables
from dlf.kernels.entropy_bin import BLOCKS, DepthBlock, EntropyTables, Layer, layer_shapes
from dlf.kernels.entropy_params_reference import entropy_params, spread

VECTORS = Path(__file__).parents[1] / "reference" / "rans_vectors.npz"


@cache
def reference_frequencies() -> tuple[NDArray[np.uint16], ...]:
    """The frequencies of the reference coder's 256 CDFs."""
    with np.load(VECTORS) as vectors:
        return tuple(
            np.diff(cdf[:length]).astype(np.uint16) for cdf, length in zip(vectors["cdf"], vectors["cdf_length"], strict=True)
        )


def random_tables(
    rng: np.random.Generator, channels: int = 8, gain: float = 0.5, entries: int = 16, dim: int = 4
) -> EntropyTables:
    """A valid entropy model with random weights and the reference coder's CDFs. With a gain of 1 or more activations
    saturate."""
    return tables.random_tables(rng, reference_frequencies(), channels, gain, entries, dim)


def with_token_frequencies(tables: EntropyTables, rng: np.random.Generator) -> EntropyTables:
    """The same model with frequencies of tokens: some 1, some large."""
    entries = len(tables.codebook)
    rows = np.ones((32, entries), np.int64)
    for row in rows:
        likely = rng.choice(entries, rng.integers(1, entries + 1), replace=False)
        row[likely] += rng.multinomial(65536 - entries, rng.dirichlet(np.full(len(likely), 0.5)))
    return dataclasses.replace(tables, token_frequencies=rows.astype(np.uint16))


def extreme_tables(rng: np.random.Generator, channels: int) -> EntropyTables:
    """A valid entropy model at the format's limits: the largest weights, multipliers and biases, so that everything saturates."""

    def layer(outputs: int, inputs: int) -> Layer:
        w = rng.choice([-128, -127, 127], (outputs, inputs))
        w[:, 65535 // 128 :] = 0  # sum|w| <= 65535
        m = rng.choice([0, 1, 2**16, 2**31 - 1], outputs)
        b = rng.choice([-(2**62), -1, 0, 2**31, 2**62], outputs)
        return Layer(w.astype(np.int8), m.astype(np.int32), b.astype(np.int64))

    blocks = tuple(DepthBlock(**{name: layer(*shape) for name, shape in layer_shapes(channels).items()}) for _ in BLOCKS)
    return dataclasses.replace(random_tables(rng, channels), blocks=blocks)


def identity_tables(channels: int = 4, mean: int = 0) -> EntropyTables:
    """Every symbol is coded, every q is 1, and every mean is `mean` / 256: the blocks pass [r; common] through."""
    random = random_tables(np.random.default_rng(0), channels)
    table = np.ones_like(random.indexes)
    blocks = tuple(
        DepthBlock(
            **{
                name: Layer(np.zeros((outputs, inputs), np.int8), np.zeros(outputs, np.int32), np.zeros(outputs, np.int64))
                for name, (outputs, inputs) in layer_shapes(channels).items()
            }
        )
        for _ in BLOCKS
    )
    return dataclasses.replace(
        random,
        thresholds=np.full_like(random.thresholds, -32768),
        q=table.astype(np.float32),
        indexes=table * 100,
        means=table * mean,
        common=table * mean,
        blocks=blocks,
    )


# A second implementation of the coder, from section 2 of docs/format.md.


def python_rans_encode(frequencies: Sequence[NDArray[np.uint16]], symbols: Sequence[int], indexes: Sequence[int]) -> bytes:
    """The stream of symbols; index -1 is not coded."""
    operations: list[tuple[int, int, int]] = []  # (start, frequency, bits): a symbol of 16 bits, or a raw group of 2
    for value, index in zip(map(int, symbols), indexes, strict=True):
        if index < 0:
            continue
        freq = [int(f) for f in frequencies[index]]
        c = len(freq) // 2 - 1
        symbol = value + c if abs(value) <= c else 2 * c + 1
        operations.append((sum(freq[:symbol]), freq[symbol], 16))
        if symbol == 2 * c + 1:
            u = value + c
            raw = -2 * u - 1 if u < 0 else 2 * (u - (2 * c + 1))
            n = (raw.bit_length() + 1) // 2
            groups = [3] * (n // 3) + [n % 3] + [raw >> (2 * i) & 3 for i in range(n)]
            operations += [(group, 1, 2) for group in groups]
    x, emitted = 1 << 23, []
    for start, frequency, bits in reversed(operations):
        while x >= frequency << (31 - bits):
            emitted.append(x & 0xFF)
            x >>= 8
        x = (x // frequency << bits) + x % frequency + start
    return x.to_bytes(4, "little") + bytes(reversed(emitted))


def python_rans_decode(frequencies: Sequence[NDArray[np.uint16]], stream: bytes, indexes: Sequence[int]) -> list[int]:
    """The symbols of a valid stream."""
    x = int.from_bytes(stream[:4], "little")
    rest = iter(stream[4:])

    def group() -> int:
        nonlocal x
        v, x = x & 3, x >> 2
        if x < 1 << 23:
            x = x << 8 | next(rest)
        return v

    symbols = []
    for index in indexes:
        if index < 0:
            symbols.append(0)
            continue
        freq = [int(f) for f in frequencies[index]]
        c, slot = len(freq) // 2 - 1, x & 0xFFFF
        symbol, start = 0, 0
        while start + freq[symbol] <= slot:
            start += freq[symbol]
            symbol += 1
        x = freq[symbol] * (x >> 16) + slot - start
        while x < 1 << 23:
            x = x << 8 | next(rest)
        if symbol <= 2 * c:
            symbols.append(symbol - c)
            continue
        n, part = 0, 3
        while part == 3:
            part = group()
            n += part
        raw = sum(group() << (2 * i) for i in range(n))
        symbols.append((-(raw + 1) // 2 if raw % 2 else raw // 2 + 2 * c + 1) - c)
    assert x == 1 << 23
    assert not list(rest)
    return symbols


def python_put_tokens(frequencies: NDArray[np.uint16], tokens: NDArray[np.uint16], detail: bytes) -> bytes:
    """The stream of tokens (tiles, 32) and a detail stream; `frequencies` are (32, entries)."""
    x, emitted = int.from_bytes(detail[:4], "little"), []
    for at in reversed(range(tokens.size)):
        row, token = frequencies[at % 32].astype(int), int(tokens.ravel()[at])
        while x >= int(row[token]) << 15:
            emitted.append(x & 0xFF)
            x >>= 8
        x = (x // int(row[token]) << 16) + x % int(row[token]) + int(row[:token].sum())
    return x.to_bytes(4, "little") + bytes(reversed(emitted)) + detail[4:]


def python_take_tokens(frequencies: NDArray[np.uint16], stream: bytes, tiles: int) -> tuple[NDArray[np.uint16], bytes]:
    """The tokens (tiles, 32) and the detail stream of such a stream. Raises IndexError if it ends before the last token."""
    x, read = int.from_bytes(stream[:4], "little"), 4
    tokens = np.empty((tiles, 32), np.uint16)
    for at in range(tokens.size):
        row, slot = frequencies[at % 32].astype(int), x & 0xFFFF
        token = int(np.searchsorted(row.cumsum(), slot, side="right"))
        x = int(row[token]) * (x >> 16) + slot - int(row[:token].sum())
        while x < 1 << 23:
            x, read = x << 8 | stream[read], read + 1
        tokens.flat[at] = token
    return tokens, x.to_bytes(4, "little") + stream[read:]


# (row, col) in the 2x2 block of groups 0..3, for each step: the table of docs/format.md.
POSITIONS = (
    ((0, 0), (0, 1), (1, 0), (1, 1)),
    ((1, 1), (1, 0), (0, 1), (0, 0)),
    ((1, 0), (1, 1), (0, 0), (0, 1)),
    ((0, 1), (0, 0), (1, 1), (1, 0)),
)


@dataclasses.dataclass(frozen=True)
class DetailStep:
    """One step of coding a detail latent: the prior's input and outputs, (C, H, W), and what goes into the stream."""

    r: NDArray[np.int32]  # before the step
    indexes: NDArray[np.int16]
    means: NDArray[np.int16]
    r_after: NDArray[np.int32]
    symbols: NDArray[np.int32]  # (C/4 * H * W,), in the stream's order
    coded_indexes: NDArray[np.int16]  # likewise


def python_detail_steps(tables: EntropyTables, y: NDArray[np.float32]) -> list[DetailStep]:
    """The four steps of coding y (C, H, W), from the format's description, with the NumPy prior."""
    channels, height, width = y.shape
    q = spread(tables.q, height, width)
    r = np.zeros(y.shape, np.int32)
    steps = []
    for number in range(4):
        indexes, means = entropy_params(tables, number, r)
        symbols = np.clip(np.rint(y / q - means.astype(np.float32) / np.float32(256)), -(2**20), 2**20).astype(np.int32)
        symbols[indexes < 0] = 0
        mine = np.zeros(y.shape, bool)
        for group, (row, col) in enumerate(POSITIONS[number]):
            mine[group * channels // 4 : (group + 1) * channels // 4, row::2, col::2] = True
        # One symbol of each channel of a group at each position: the sum over the groups.
        fold = (4, channels // 4, height, width)
        coded = (np.where(mine, x, 0).reshape(fold).sum(0).ravel().astype(x.dtype) for x in (symbols, indexes))
        after = np.where(mine, 256 * symbols + means, r)
        steps.append(DetailStep(r, indexes, means, after, *coded))
        r = after
    return steps


def python_encode_detail(tables: EntropyTables, y: NDArray[np.float32]) -> tuple[bytes, NDArray[np.float32]]:
    """The detail stream of y (C, H, W) and y_hat, from the format's description: the NumPy prior and the Python coder."""
    steps = python_detail_steps(tables, y)
    symbols, indexes = (np.concatenate([getattr(step, name) for step in steps]) for name in ("symbols", "coded_indexes"))
    y_hat = steps[-1].r_after.astype(np.float32) / np.float32(256) * spread(tables.q, *y.shape[1:])
    return python_rans_encode(tables.frequencies, symbols.tolist(), indexes.tolist()), y_hat
