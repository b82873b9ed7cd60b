"""SIGKILL at random moments of encoding, decoding and exporting: what is there afterwards is the old or the new, and whole.

Each process is forked from this one, which has the codec open, so that a kill costs milliseconds. It replaces its target again
and again. The export's bundle is copied file by file, which takes no minute as computing it would.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

from helpers.bundle import make_toy_bundle

import dlf
from battery.pictures import picture
from battery.result import Result, scaled
from dlf.export import output_folder
from dlf.export.output_folder import workplace, writing
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.files import write_atomically
from dlf.runtime.formats import STAGES
from dlf.runtime.images import encode_as

LONGEST = 0.1  # seconds until a kill; one replacement takes some milliseconds


def run(scale: float, bundle: Path, folder: Path) -> Result:
    """Kill 500 processes that encode, 500 that decode, and 100 that export, half of these without the exchange in one step."""
    result, rng = Result(), Random(0)
    with dlf.Codec(bundle, "onnxruntime", threads=1) as codec:  # no threads, so that it can be forked
        images = [picture(seed, 100) for seed in (1, 2)]
        files = [codec.encode(image) for image in images]
        pictures = [encode_as(codec.decode(file), ".png") for file in files]

        def encode(target: Path, turn: int) -> None:
            write_atomically(target, codec.encode(images[turn]))

        def decode(target: Path, turn: int) -> None:
            write_atomically(target, encode_as(codec.decode(files[turn]), ".png"))

        for name, work, valid in (("encode", encode, files), ("decode", decode, pictures)):
            target = folder / f"{name}.out"
            changed, last = 0, b""
            target.write_bytes(valid[0])
            count = scaled(500, scale)
            for _ in range(count):
                _kill(rng, partial(work, target))
                found = target.read_bytes()
                if found not in valid:
                    result.wrong.append(f"{name}: {len(found)} bytes that are neither the old file nor the new")
                changed += found != last
                last = found
            result.figures |= {f"kills in {name}": count, f"{name}: found another file than before": changed}
    _kill_exports(scaled(100, scale), folder, rng, result)
    return result


def _kill_exports(count: int, folder: Path, rng: Random, result: Result) -> None:
    bundles = [make_toy_bundle(folder / f"toy{seed}", seed) for seed in (1, 2)]
    target = folder / "exports" / "bundle"
    shutil.copytree(bundles[0], target)
    exchange = output_folder._exchange
    recovered = leftovers = 0

    def export(turn: int) -> None:
        with writing(target, 0) as new:
            for file in bundles[turn].iterdir():
                shutil.copyfile(file, new / file.name)

    for number in range(count):
        output_folder._exchange = exchange if number % 2 else lambda one, other: False
        _kill(rng, export)
        leftovers += len(list(target.parent.glob(f"{output_folder.PREFIX}*")))
        if not target.exists():
            if number % 2:
                result.wrong.append("export: no bundle was there, although they are exchanged in one step")
            recovered += 1
        with workplace(target):  # as the next export begins
            pass
        try:
            for stage in STAGES:
                Bundle(target).stage(stage)
        except dlf.DLFError as error:
            result.wrong.append(f"export: {error}")
        if left := [entry.name for entry in target.parent.iterdir() if entry.name != target.name]:
            result.wrong.append(f"export: the next one left {left}")
    output_folder._exchange = exchange
    result.figures |= {
        "kills in export": count,
        "export: leftovers, removed by the next": leftovers,
        "export: put back by the next, without the exchange": recovered,
    }


def _kill(rng: Random, work: Callable[[int], None]) -> None:
    """Fork a process that works until it is killed, in turn for 0 and 1."""
    child = os.fork()
    if child == 0:
        try:
            while True:
                work(1)
                work(0)
        finally:
            os._exit(1)
    time.sleep(rng.uniform(0, LONGEST))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise RuntimeError("the process that was to be killed failed before")
