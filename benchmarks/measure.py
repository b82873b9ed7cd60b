"""Measure one image with a codec and its rivals: the size of the real files, and their quality."""

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
    path: Path,
    codec: dlf.Codec,
    compare: Compare,
    others: Sequence[rivals.Rival] = (),
    *,
    with_curves: bool = False,
    with_pictures: bool = False,
) -> tuple[ImageResult, Pictures]:
    """Measure an image file; the rivals' curves and the pictures are optional.

    Raises:
        Whatever the codec, a rival or a metric raises.
    """
    source = path.read_bytes()
    original = load(BytesIO(source))
    shown = {"original": original}
    pixels = original.shape[0] * original.shape[1]

    def coding(name: str, data: bytes, decoded: NDArray[np.uint8], setting: str = "", at_minimum: bool = False) -> Coding:
        return Coding(name, len(data), 8 * len(data) / pixels, compare(original, decoded), setting, at_minimum)

    data = codec.encode(original)
    shown[OURS] = codec.decode(data)
    codings = [coding(OURS, data, shown[OURS])]
    for rival in others:
        found = rivals.encode(rival, original, len(data))
        shown[rival.name] = rival.decode(found.data)
        codings.append(coding(rival.name, found.data, shown[rival.name], f"quality {found.quality}", found.at_minimum))
    curves = []
    for rival in others if with_curves else ():
        for quality in rival.curve:
            at_quality = rival.encode(original, quality)
            curves.append(coding(rival.name, at_quality, rival.decode(at_quality), f"quality {quality}"))
    info = dlf.info(data)
    size = info.bytes
    result = ImageResult(
        image=path.name,
        sha256=sha256(source).hexdigest(),
        width=info.width,
        height=info.height,
        parts={"header": size.header, "tokens": size.tokens, "detail": size.detail, "checksum": size.checksum},
        padding_waste=info.padding_waste,
        codings=codings,
        curves=curves,
    )
    return result, {name: pictures.data_uri(picture) for name, picture in shown.items()} if with_pictures else {}
