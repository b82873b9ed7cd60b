"""A million damaged files whose checksums are right again, read up to the neural stages: no crash, none but typed errors.

    python -m battery.mutations BUNDLE SEED COUNT

does a share of them in a process of its own, and prints its figures. Many damaged tokens are valid tokens: such files are
accepted, as they must be, and so is a detail stream that by chance ends as an encoder ends one.
"""

import json
import subprocess
import sys
from binascii import crc_hqx
from collections import Counter
from pathlib import Path
from random import Random
from time import perf_counter

import dlf
from battery.entropy_decode import decode
from battery.pictures import picture
from battery.result import Result, scaled
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import DLFError
from dlf.runtime.formats import tiles

COUNT = 1_000_000
SHARE = 50_000  # of a process


def run(scale: float, bundle: Path, folder: Path) -> Result:
    """Do them, two processes at a time."""
    result, count = Result(), scaled(COUNT, scale)
    shares = [(seed, min(SHARE, count - start)) for seed, start in enumerate(range(0, count, SHARE))]
    found: Counter[str] = Counter()
    worst = 0.0
    waiting = []
    for seed, share in shares:
        command = [sys.executable, "-m", "battery.mutations", str(bundle), str(seed), str(share)]
        waiting.append((seed, subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])))
        if len(waiting) == 2 or seed == len(shares) - 1:
            for number, process in waiting:
                output = process.communicate()[0]
                if process.returncode:
                    result.wrong.append(f"share {number} ended with {process.returncode}")
                    continue
                figures = json.loads(output)
                found.update(figures["found"])
                worst = max(worst, figures["worst"])
                result.wrong += figures["wrong"]
            waiting = []
    result.figures = {
        "mutations": sum(found.values()),
        "accepted": f"{found['accepted'] / max(1, sum(found.values())):.2%}",
        "slowest, in ns a pixel of the padded image": round(1e9 * worst, 1),
        **{f"refused by {kind}": number for kind, number in sorted(found.items()) if kind != "accepted"},
    }
    return result


def mutated(rng: Random, files: list[bytes]) -> bytes:
    """A damaged file with the checksum of what it is now."""
    data = bytearray(rng.choice(files)[:-2])
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(data)) if rng.random() < 0.7 else rng.randrange(min(10, len(data)))  # often in the header
        kind = rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del data[at : at + rng.choice((1, 2, 7, len(data)))]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 5, 40)))
        elif kind == 4:
            other = rng.choice(files)
            start = rng.randrange(len(other))
            data[at : at + rng.randrange(1, 32)] = other[start : start + rng.randrange(1, 32)]
        else:
            data[at:] = rng.randbytes(len(data) - at)
        if not data:
            break
    return bytes(data) + crc_hqx(bytes(data), 0xFFFF).to_bytes(2, "little")


def share(bundle: Path, seed: int, count: int) -> dict[str, object]:
    """Do a share; the figures."""
    rng = Random(seed)
    with dlf.Codec(bundle, "onnxruntime", threads=1) as codec:
        files = [codec.encode(picture(number, most)) for number, most in enumerate((1, 40, 256, 300, 400, 500))]
    model = Bundle(bundle).entropy
    found: Counter[str] = Counter()
    worst, wrong = 0.0, []
    for number in range(count):
        data = mutated(rng, files)
        start = perf_counter()
        try:
            file, _ = decode(model, data)
        except DLFError as error:
            found[type(error).__name__] += 1
            continue
        except Exception as error:
            wrong.append(f"mutation {number} of share {seed}: {type(error).__name__}: {error}")
            continue
        found["accepted"] += 1
        down, across = tiles(file.height, file.width)
        worst = max(worst, (perf_counter() - start) / (down * across * 256 * 256))
    return {"found": found, "worst": worst, "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(share(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
