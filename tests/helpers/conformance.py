"""The conformance vectors (tests/conformance): what is stored, and how their inputs are made again.

for step in prior_steps("255x257"):  # what a prior must reproduce, bit by bit
    indexes, means = my_prior(entropy_tables(), step.number, step.r)
"""

import hashlib
from binascii import crc_hqx
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from helpers.entropy import python_put_tokens
from numpy.typing import NDArray

from dlf.kernels.entropy_bin import EntropyTables

FOLDER = Path(__file__).parents[1] / "conformance"
FOLDERS = {1: FOLDER, 3: FOLDER / "coded-tokens"}  # of each version of the .dlf file
SIZES = {"1x1": (1, 1), "255x257": (255, 257), "768x512": (768, 512), "2048x1365": (2048, 1365)}  # (width, height) in pixels
WITH_STEPS = ("1x1", "255x257")  # sizes whose prior steps are stored; the hash of y_hat says as much of the others


@dataclass(frozen=True)
class PriorStep:
    """One step of the integer prior on a real reconstruction; all (C, H, W)."""

    number: int
    r: NDArray[np.int32]
    indexes: NDArray[np.int16]
    means: NDArray[np.int16]


@cache
def entropy_bin(version: int = 1) -> bytes:
    """The entropy model of the vectors; that of version 3 is the same with frequencies of tokens."""
    return (FOLDERS[version] / "entropy.bin").read_bytes()


@cache
def entropy_tables(version: int = 1) -> EntropyTables:
    """The same as NumPy arrays."""
    return EntropyTables.from_bytes(entropy_bin(version))


def stored(name: str, version: int = 1) -> bytes:
    """A file."""
    return (FOLDERS[version] / f"{name}.dlf").read_bytes()


@cache
def vectors() -> dict[str, NDArray[np.generic]]:
    """vectors.npz, as its README describes it."""
    with np.load(FOLDER / "vectors.npz") as stored:
        return dict(stored)


def prior_steps(name: str) -> list[PriorStep]:
    """The four steps of an image; `name` is one of WITH_STEPS."""
    arrays = vectors()
    return [PriorStep(k, *(arrays[f"{name}.step{k}.{part}"] for part in ("r", "indexes", "means"))) for k in range(4)]


def map_size(name: str) -> tuple[int, int]:
    """(H, W) of an image's detail map."""
    width, height = SIZES[name]
    return 8 * -(-height // 256), 8 * -(-width // 256)


def latent(name: str) -> NDArray[np.float32]:
    """The detail latent y (C, H, W) that was coded: multiples of 1/256, sums of two of integer hashes, so exact anywhere."""
    shape = (len(entropy_tables().q), *map_size(name))
    return ((_hash(shape, 1) % 1025 + _hash(shape, 2) % 1025 - 1024.0) / 256).astype(np.float32)


def tokens(name: str) -> NDArray[np.uint16]:
    """The tokens (tiles, 32) that were coded."""
    height, width = map_size(name)
    return (_hash((height * width // 64, 32), 3) % len(entropy_tables().codebook)).astype(np.uint16)


def _hash(shape: tuple[int, ...], seed: int) -> NDArray[np.int64]:
    """32-bit hashes of 0, 1, 2, ... (the finaliser of MurmurHash3, by Austin Appleby, public domain)."""
    x = np.arange(np.prod(shape), dtype=np.uint32) + np.uint32(seed * 0x9E3779B9 & 0xFFFFFFFF)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return (x ^ (x >> np.uint32(16))).astype(np.int64).reshape(shape)


def token_frequencies(entries: int) -> NDArray[np.uint16]:
    """Frequencies of tokens (32, entries): 1 for every seventh entry, hashes for the others, and the rest for the place's own."""
    rows = 1 + _hash((32, entries), 4) % 900
    rows[:, ::7] = 1
    rows[np.arange(32), np.arange(32)] += 65536 - rows.sum(1)
    return rows.astype(np.uint16)


def python_write_file(width: int, height: int, values: NDArray[np.uint16], bits: int, detail: bytes, version: int = 1) -> bytes:
    """A .dlf file of the vectors' model, from section 1 of docs/format.md."""

    def varint(x: int) -> bytes:
        return bytes([x]) if x < 128 else bytes([x & 127 | 128]) + varint(x >> 7)

    if version == 1:
        packed = int("".join(f"{int(token):0{bits}b}" for token in values.ravel()), 2).to_bytes(values.size * bits // 8, "big")
        payload = packed + detail
    else:
        frequencies = entropy_tables(version).token_frequencies
        assert frequencies is not None
        payload = python_put_tokens(frequencies, values, detail)
    fingerprint = hashlib.sha256(entropy_bin(version)).digest()[:2]
    body = bytes([0xDF, version << 5 | bits - 1]) + fingerprint + varint(width - 1) + varint(height - 1) + payload
    return body + crc_hqx(body, 0xFFFF).to_bytes(2, "little")
