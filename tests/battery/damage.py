"""Every prefix and every flipped bit of 14 files, four of them the conformance vectors, two with metadata: all are refused."""

from pathlib import Path

import helpers.conformance as conformance

import dlf
from battery.entropy_decode import decode
from battery.pictures import picture
from battery.result import Result
from dlf.runtime.errors import DLFError
from dlf.runtime.libdlf import EntropyModel, Limits, Metadata, replace_metadata

SIZES = (20, 100, 200, 256, 300, 400, 500, 700)  # the most pixels a side of the pictures that the toy bundle encodes


def run(scale: float, bundle: Path, folder: Path) -> Result:
    """Try them, or with a scale below 1 each of so many."""
    result, step = Result(), max(1, round(1 / scale))
    files = [
        (EntropyModel(conformance.entropy_bin()), (conformance.FOLDER / f"{name}.dlf").read_bytes()) for name in conformance.SIZES
    ]
    with dlf.Codec(bundle, "onnxruntime", threads=1) as codec:
        toy = codec.bundle.entropy
        files += [(toy, codec.encode(picture(seed, most))) for seed, most in enumerate(SIZES)]
    some = Metadata(b"II*\0" + bytes(range(256)), b"<x:xmpmeta>" + bytes(1000))
    files += [(model, replace_metadata(data, some)) for model, data in (files[0], files[-1])]
    prefixes = flips = 0
    for model, data in files:
        decode(model, data, Limits())  # whole, it is accepted
        for size in range(0, len(data), step):
            _try(model, data[:size], f"{size} of {len(data)} bytes", result)
            prefixes += 1
        flipped = bytearray(data)
        for bit in range(0, 8 * len(data), step):
            flipped[bit // 8] ^= 1 << bit % 8
            _try(model, bytes(flipped), f"{len(data)} bytes with bit {bit} flipped", result)
            flipped[bit // 8] ^= 1 << bit % 8
            flips += 1
    result.figures = {"files": len(files), "prefixes": prefixes, "flipped bits": flips, "accepted": len(result.wrong)}
    return result


def _try(model: EntropyModel, data: bytes, what: str, result: Result) -> None:
    try:
        decode(model, data, Limits())
    except DLFError:
        return
    result.wrong.append(f"{what}: accepted")
