"""An architecture of CompressAI as a command for dlf-bench: pip install compressai, in an environment of its own, since it wants
NumPy below 2.

    python compressai_codec.py encode bmshj2018-hyperprior 1 image.png image.bin
    python compressai_codec.py decode image.bin image.png
    python compressai_codec.py time bmshj2018-hyperprior 1 image.png    seconds with the model in memory, as JSON

The weights are random, of one seed, since the trained ones are not in the package: **the speed is true; rate and quality mean
nothing**. With `--pretrained` CompressAI fetches the trained weights, and all figures are true.
"""

import argparse
import json
import struct
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from compressai.zoo import image_models
from PIL import Image

MULTIPLE = 64  # that sides are padded to


def model(architecture: str, quality: int, pretrained: bool) -> torch.nn.Module:
    """The network, ready to code."""
    torch.manual_seed(0)
    network = image_models[architecture](quality=quality, metric="mse", pretrained=pretrained).eval()
    network.update(force=True)
    return network


def read(image: Path) -> torch.Tensor:
    """The pixels of an image, (1, 3, height, width), 0 to 1."""
    return torch.from_numpy(np.array(Image.open(image).convert("RGB"))).permute(2, 0, 1)[None] / 255


def pad(pixels: torch.Tensor) -> torch.Tensor:
    """The same with sides that are multiples of `MULTIPLE`."""
    height, width = pixels.shape[2:]
    return torch.nn.functional.pad(pixels, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")


def encode(architecture: str, quality: int, pretrained: bool, image: Path, file: Path) -> None:
    """Write a header of one JSON object, its length before it in four bytes, and the strings of the coder."""
    pixels = read(image)
    height, width = pixels.shape[2:]
    with torch.inference_mode():
        coded = model(architecture, quality, pretrained).compress(pad(pixels))
    strings = [string for (string,) in coded["strings"]]
    header = json.dumps([architecture, quality, pretrained, height, width, list(coded["shape"]), [len(s) for s in strings]])
    file.write_bytes(struct.pack("<I", len(header)) + header.encode() + b"".join(strings))


def decode(file: Path, image: Path) -> None:
    """Write the picture of a file that `encode` wrote."""
    data = file.read_bytes()
    (length,) = struct.unpack_from("<I", data)
    architecture, quality, pretrained, height, width, shape, lengths = json.loads(data[4 : 4 + length])
    ends = np.cumsum([4 + length, *lengths])
    strings = [[data[start:end]] for start, end in pairwise(ends)]
    with torch.inference_mode():
        decoded = model(architecture, quality, pretrained).decompress(strings, shape)["x_hat"]
    pixels = decoded[0, :, :height, :width].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(image)


def time(architecture: str, quality: int, pretrained: bool, image: Path, repeats: int) -> None:
    """Print the median seconds of coding and decoding an image, pixels to strings and back, after one run of each."""
    network, padded = model(architecture, quality, pretrained), pad(read(image))
    seconds: dict[str, list[float]] = {"encode": [], "decode": []}
    with torch.inference_mode():
        for _ in range(1 + repeats):
            start = perf_counter()
            coded = network.compress(padded)
            between = perf_counter()
            network.decompress(coded["strings"], coded["shape"])
            seconds["encode"].append(between - start)
            seconds["decode"].append(perf_counter() - between)
    medians = {direction: round(median(runs[1:]), 3) for direction, runs in seconds.items()}
    print(json.dumps({"architecture": architecture, "threads": torch.get_num_threads(), "repeats": repeats, **medians}))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    encoder = commands.add_parser("encode")
    encoder.add_argument("architecture", choices=image_models)
    encoder.add_argument("quality", type=int)
    encoder.add_argument("image", type=Path)
    encoder.add_argument("file", type=Path)
    encoder.add_argument("--pretrained", action="store_true")
    decoder = commands.add_parser("decode")
    decoder.add_argument("file", type=Path)
    decoder.add_argument("image", type=Path)
    timer = commands.add_parser("time")
    timer.add_argument("architecture", choices=image_models)
    timer.add_argument("quality", type=int)
    timer.add_argument("image", type=Path)
    timer.add_argument("--pretrained", action="store_true")
    timer.add_argument("--repeats", type=int, default=5)
    options = vars(parser.parse_args())
    {"encode": encode, "decode": decode, "time": time}[options.pop("command")](**options)


if __name__ == "__main__":
    main()
