"""Encoding and decoding one image: PyTorch eager against the runtime's backends, with the same weights, in one run.

Each line of the table is a process of its own, so that peak memory is its own and no library slows another.

    python -m dlf.benchmarks.speed photo.png --checkpoint model.ckpt --model bundle
"""

import json
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import dlf
from dlf.runtime.core import TOKENS_PER_TILE, write_file
from dlf.runtime.images import TILE, load

PEERS = ("torch", "openvino", "onnxruntime")
DIRECTIONS = ("encode", "decode")


def measure(peer: str, direction: str, image: Path, checkpoint: Path, model: Path, threads: int, repeats: int) -> dict[str, Any]:
    """Run one peer in one direction, here: seconds of each repeat after one to warm up, and peak memory."""
    codec: Any
    if peer == "torch":
        from dlf.benchmarks.torch_codec import TorchCodec  # not in the other peers' processes

        codec = TorchCodec(checkpoint, threads)
    else:
        codec = dlf.Codec(model, peer, threads)
    subject: Any = image if direction == "encode" else made_up(codec, image)
    work = getattr(codec, direction)
    work(subject)
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        work(subject)
        seconds.append(perf_counter() - start)
    return {"seconds": seconds, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def made_up(codec: Any, image: Path) -> Any:
    """Something of the image's size to decode, without an encoder's memory in this process: random latents, really coded."""
    height, width, _ = load(image, dlf.Limits()).shape
    down, across = -(-height // TILE), -(-width // TILE)
    rng = np.random.default_rng(0)
    entropy = codec.bundle.entropy if isinstance(codec, dlf.Codec) else codec.entropy
    z = rng.normal(size=(down * across, entropy.codebook_dim, TOKENS_PER_TILE)).astype(np.float32)
    y = rng.normal(size=(entropy.channels, 8 * down, 8 * across)).astype(np.float32)
    if not isinstance(codec, dlf.Codec):
        import torch

        return codec.code(torch.from_numpy(z).reshape(1, down, across, *z.shape[1:]), torch.from_numpy(y[None]), height, width)
    detail, _ = entropy.encode_detail(y)
    return write_file(
        width=width,
        height=height,
        fingerprint=entropy.fingerprint,
        token_bits=entropy.token_bits,
        tokens=entropy.vq_lookup(z),
        detail=detail,
    )


def main(
    image: Annotated[Path, typer.Argument(help="The image.")],
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint, for PyTorch.")],
    model: Annotated[Path, typer.Option(help="The bundle exported from it.")],
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each, after one to warm up.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    only: Annotated[str | None, typer.Option(hidden=True, help="One measurement, PEER:DIRECTION, in this process.")] = None,
) -> None:
    """Compare encoding and decoding of one image on every backend with PyTorch eager."""
    if only:
        peer, direction = only.split(":")
        print(json.dumps(measure(peer, direction, image, checkpoint, model, threads, repeats)))
        return
    results: dict[str, dict[str, Any]] = {}
    with Console(stderr=True).status("measuring") as status:
        for peer in PEERS:
            for direction in DIRECTIONS:
                status.update(f"{peer} {direction}")
                command = [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--only", f"{peer}:{direction}"]
                run = subprocess.run(command, stdout=subprocess.PIPE, check=True)
                results.setdefault(peer, {})[direction] = json.loads(run.stdout)
    report = {
        "image": image.name,
        "threads": threads,
        "repeats": repeats,
        "processor": platform.processor() or platform.machine(),
        "versions": {package: version(package) for package in ("dlf", *PEERS)},
        "results": results,
    }
    if as_json:
        print(json.dumps(report, indent=1))
        return
    table = Table(title=f"{image.name}, {threads} threads, median of {repeats}")
    for column in ("", "encode s", "against torch", "peak GB", "decode s", "against torch", "peak GB"):
        table.add_column(column, justify="right")
    for peer in PEERS:
        cells = [f"{peer} {version(peer)}"]
        for direction in DIRECTIONS:
            seconds = median(results[peer][direction]["seconds"])
            base = median(results["torch"][direction]["seconds"])
            cells += [f"{seconds:.2f}", f"{base / seconds:.2f}x", f"{results[peer][direction]['peak_bytes'] / 1e9:.2f}"]
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
