"""The first inputs of the fuzz targets, made from the conformance vectors, the reference coder's streams and a real manifest."""

import dataclasses
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helpers.conformance as conformance
import numpy as np
from helpers.entropy import VECTORS, python_rans_encode, random_tables, reference_frequencies
from helpers.levels import Weights, listed, steps
from numpy.typing import NDArray

from dlf.runtime.bundles import builtin
from dlf.runtime.libdlf import Metadata, replace_metadata

SHORT = 200  # symbols of a rANS seed: a fuzzer learns more from many short inputs than from a few long ones


def write_seeds(folder: Path) -> None:
    """Write the seeds of each target to a folder of its name."""
    for target, make in {
        "bundle_manifest": bundle_manifest,
        "container": container,
        "entropy_model": entropy_model,
        "rans_decode": rans_decode,
        "rans_round_trip": rans_round_trip,
    }.items():
        (folder / target).mkdir(parents=True)
        for number, seed in enumerate(make()):
            (folder / target / str(number)).write_bytes(seed)


def bundle_manifest() -> Iterator[bytes]:
    """The built-in model's manifest, the smallest one, and some that are refused."""
    yield (builtin.path() / "manifest.json").read_bytes()
    smallest: dict[str, Any] = {
        "format": "dlf-bundle",
        "format_version": 1,
        "model": {"name": "n"},
        "fingerprint": "1f2e",
        "precision": "fp32",
        "stages": {"analysis": {"file": "a.onnx", "precision": "fp32", "inputs": []}},
        "files": {"a.onnx": {"bytes": 1, "sha256": "0" * 64}},
    }
    yield json.dumps(smallest).encode()
    weights = Weights()
    levels = {"stage": "analysis", "file": "a.onnx", "steps": listed(steps(0, base=32, width=32), weights)}
    stages = {**smallest["stages"], "generator": {"file": "a.onnx", "levels": levels}}
    files = {"a.onnx": {"bytes": len(weights.data), "sha256": "0" * 64}}
    yield json.dumps({**smallest, "stages": stages, "files": files}).encode()
    yield json.dumps({**smallest, "format": "zip"}).encode()
    yield json.dumps({**smallest, "format_version": 2}).encode()
    yield json.dumps({**smallest, "files": {"../a.onnx": {"bytes": 1, "sha256": "0" * 64}}}).encode()
    for field in smallest:  # deep enough to end a stack in what visits values by calling itself
        yield json.dumps({**smallest, field: None}).replace("null", "[" * 20000 + "]" * 20000).encode()
    yield '{"format": "dlf-bundle\\ud83d", "é": 1e999}'.encode()


def container() -> Iterator[bytes]:
    """The conformance vectors' files, with and without a checksum, and with metadata."""
    for version in conformance.FOLDERS:
        for name in ("1x1", "255x257", "768x512"):
            file = conformance.stored(name, version)
            yield file
            yield bytes([file[0], file[1] | 0x10]) + file[2:-2]
            yield replace_metadata(file, Metadata(b"II*\0 some EXIF", b"<x:xmpmeta/>"))


def entropy_model() -> Iterator[bytes]:
    """The conformance vectors' model, and one with the smallest parts."""
    yield conformance.entropy_bin()
    yield conformance.entropy_bin(3)
    tables = random_tables(np.random.default_rng(0), channels=4, entries=2, dim=1)
    cdfs = 3
    yield dataclasses.replace(
        tables,
        frequencies=tables.frequencies[:cdfs],
        thresholds=tables.thresholds[:cdfs],
        indexes=np.minimum(tables.indexes, cdfs - 1),
    ).to_bytes()


def rans_decode() -> Iterator[bytes]:
    """Streams behind their indexes."""
    for symbols, indexes in coded():
        stream = python_rans_encode(reference_frequencies(), symbols, indexes)
        yield struct.pack("<H", len(indexes)) + (indexes + 1).astype("<u2").tobytes() + stream


def rans_round_trip() -> Iterator[bytes]:
    """Symbols, each behind its index."""
    for symbols, indexes in coded():
        yield b"".join(struct.pack("<Hi", index + 1, symbol) for symbol, index in zip(symbols, indexes, strict=True))


def coded() -> Iterator[tuple[NDArray[np.int32], NDArray[np.int16]]]:
    """The beginnings of coded sequences: symbols and CDF indexes."""
    with np.load(VECTORS) as reference:
        arrays = {**reference, **conformance.vectors()}
    for key in arrays:
        if key.endswith(".symbols"):
            indexes = arrays[key.removesuffix("symbols") + "indexes"]
            yield arrays[key][:SHORT].astype(np.int32), indexes[:SHORT].astype(np.int16)
