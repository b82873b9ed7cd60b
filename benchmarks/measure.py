"""One image through a codec and its rivals: the rate of the real files, and their quality."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import dlf
from dlf.benchmarks import pictures, rivals
from dlf.benchmarks.records import OURS, Coding, ImageResult
from dlf.runtime.images import load

Compare = Callable[[NDArray[np.uint8], NDArray[np.uint8]], dict[str, float]]  # original and decoded -> metrics
Pictures = dict[str, str]  # "original" or a codec -> data URI


def image(
    path: Path, codec: dlf.Codec, compare: Compare, rival_names: Sequence[str] = (), with_pictures: bool = False
) -> tuple[ImageResult, Pictures]:
    """Measure an image file; pictures are made if they are wanted.

    Raises:
        Whatever the codec, a rival or a metric raises.
    """
    source = path.read_bytes()
    original = load(BytesIO(source))
    data = codec.encode(original)
    shown = {"original": original, OURS: codec.decode(data)}
    info = dlf.info(data)
    codings = [Coding(OURS, len(data), info.bpp, compare(original, shown[OURS]))]
    for name in rival_names:
        coded = rivals.encode(name, original, len(data))
        shown[name] = rivals.decode(coded.data)
        bpp = 8 * len(coded.data) / (info.width * info.height)
        quality = compare(original, shown[name])
        codings.append(Coding(name, len(coded.data), bpp, quality, f"quality {coded.quality}", coded.at_minimum))
    size = info.bytes
    result = ImageResult(
        image=path.name,
        sha256=sha256(source).hexdigest(),
        width=info.width,
        height=info.height,
        parts={"header": size.header, "tokens": size.tokens, "detail": size.detail, "checksum": size.checksum},
        padding_waste=info.padding_waste,
        codings=codings,
    )
    return result, {name: pictures.data_uri(pixels) for name, pixels in shown.items()} if with_pictures else {}
