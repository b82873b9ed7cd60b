"""Thousands of images of mixed sizes in one process: its memory stays where it was after the first third.

    python -m battery.soak BUNDLE BACKEND COUNT

does them with one backend, and prints the resident memory after the first third and at the end, in bytes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import dlf
from battery.pictures import picture
from battery.result import Result, scaled

COUNT, SIZES = 5000, 40  # images, of so many sizes
FLAT = 0.02


def run(scale: float, bundle: Path, folder: Path) -> Result:
    """Do them with each backend on the CPU."""
    result, count = Result(), scaled(COUNT, scale)
    for backend in ("openvino", "onnxruntime"):
        command = [sys.executable, "-m", "battery.soak", str(bundle), backend, str(count)]
        output = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=Path(__file__).parents[1]).stdout
        early, late = json.loads(output)
        growth = late / early - 1
        result.figures |= {f"images on {backend}": count, f"growth on {backend}": f"{growth:+.2%} of {early / 1e6:.0f} MB"}
        if growth > FLAT and scale >= 1:  # few images do not fill the libraries' caches
            result.wrong.append(f"{backend}: memory grew by {growth:.1%}")
    return result


def resident() -> int:
    """This process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(bundle: str, backend: str, count: int) -> tuple[int, int]:
    """Encode and decode images; the memory after the first third and at the end."""
    images = [picture(seed) for seed in range(SIZES)]
    early = 0
    with dlf.Codec(bundle, backend, threads=1) as codec:
        for number in range(count):
            codec.decode(codec.encode(images[number % SIZES]))
            if number == count // 3:
                early = resident()
        return early, resident()


if __name__ == "__main__":
    print(json.dumps(soak(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
