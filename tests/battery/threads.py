"""Eight threads at a time give what one gives: in Python with a codec each, in C with a context each of one model."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from helpers.native import Context, Model, openvino_library
from numpy.typing import NDArray

import dlf
from battery.pictures import picture
from battery.result import Result, scaled

THREADS, IMAGES = 8, 200
Pixels = NDArray[np.uint8]


def run(scale: float, bundle: Path, folder: Path) -> Result:
    """Encode and decode 200 images in each of 8 threads, in Python and in C."""
    result, images = Result(), [picture(seed) for seed in range(scaled(IMAGES, scale))]
    with dlf.Codec(bundle, "openvino", threads=1) as codec:
        serial = [_round_trip(codec, image) for image in images]
    model = Model(bundle, threads=1, openvino=str(openvino_library()).encode())
    for language, make in {"Python": lambda: dlf.Codec(bundle, "openvino", threads=1), "C": lambda: Context(model)}.items():

        def work(thread: int, make: Callable[[], dlf.Codec | Context] = make) -> int:
            codec = make()
            order = np.random.default_rng(thread).permutation(len(images))
            return sum(not _same(_round_trip(codec, images[at]), serial[at]) for at in order)

        with ThreadPoolExecutor(THREADS) as pool:
            different = sum(pool.map(work, range(THREADS)))
        result.figures |= {f"images in {language}": THREADS * len(images), f"different in {language}": different}
        if different:
            result.wrong.append(f"{language}: {different} images differ from those of one thread")
    return result


def _round_trip(codec: dlf.Codec | Context, image: Pixels) -> tuple[bytes, Pixels]:
    data = codec.encode(image)
    return data, codec.decode(data)


def _same(one: tuple[bytes, Pixels], other: tuple[bytes, Pixels]) -> bool:
    return one[0] == other[0] and np.array_equal(one[1], other[1])
