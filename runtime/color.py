"""Colours that are not sRGB, and their conversion: ICC profiles, and the codes or numbers that PNG and AVIF files have instead.

Codes are those of ITU-T H.273, which the cICP chunk of PNG and the nclx box of AVIF and HEIF share.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Floats: TypeAlias = NDArray[np.float64]
Chromaticities: TypeAlias = tuple[float, float, float, float, float, float, float, float]  # x and y of white, red, green, blue

_D65 = (0.3127, 0.3290)
SRGB: Chromaticities = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_C = (0.310, 0.316)
_SMPTE_170M: Chromaticities = (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
_PRIMARIES: dict[int, Chromaticities] = {
    1: SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: _SMPTE_170M,
    7: _SMPTE_170M,
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_UNSPECIFIED = 2
_HIGH_DYNAMIC_RANGE = {16: "PQ", 18: "HLG"}
_NEAR = 0.05  # relative; a gamma of 1/2.2 within this is the sRGB curve, as PNG's own library has it


def _with_toe(toe: float, slope: float, offset: float, exponent: float) -> Callable[[Floats], Floats]:
    """A curve that is linear up to the encoded value `toe`, and a power above."""
    return lambda v: np.where(v <= toe, v / slope, ((v + offset) / (1 + offset)) ** exponent)


_SRGB_CURVE = _with_toe(0.04045, 12.92, 0.055, 2.4)
_BT709_CURVE = _with_toe(0.081, 4.5, 0.099, 1 / 0.45)
# The encoded value, 0 to 1, to light.
_CURVES: dict[int, Callable[[Floats], Floats]] = {
    **dict.fromkeys((1, 6, 11, 12, 14, 15), _BT709_CURVE),
    4: lambda v: v**2.2,
    5: lambda v: v**2.8,
    7: _with_toe(0.0913, 4.0, 0.1115, 1 / 0.45),
    8: lambda v: v,
    13: _SRGB_CURVE,
}


class UnknownColoursError(ValueError):
    """Colours that are not converted; the message says which."""


@dataclass(frozen=True)
class Colours:
    """What the values of an RGB image stand for: the chromaticities of white and the primaries, and a curve to light."""

    chromaticities: Chromaticities
    curve: Callable[[Floats], Floats]

    @property
    def are_srgb(self) -> bool:
        """Whether there is nothing to convert."""
        return self.curve is _SRGB_CURVE and np.allclose(self.chromaticities, SRGB, atol=0.002)


def from_codes(primaries: int, transfer: int) -> Colours:
    """The colours of a pair of codes; what is not specified is taken as sRGB's.

    Raises:
        UnknownColoursError: a code that is reserved, or of a high dynamic range, which has no one rendering in sRGB.
    """
    if transfer in _HIGH_DYNAMIC_RANGE:
        raise UnknownColoursError(f"a high dynamic range ({_HIGH_DYNAMIC_RANGE[transfer]})")
    chromaticities = SRGB if primaries == _UNSPECIFIED else _PRIMARIES.get(primaries)
    curve = _SRGB_CURVE if transfer == _UNSPECIFIED else _CURVES.get(transfer)
    if chromaticities is None or curve is None:
        raise UnknownColoursError(f"colour primaries {primaries} with transfer {transfer}")
    return Colours(chromaticities, curve)


def from_gamma(gamma: float | None, chromaticities: Chromaticities | None) -> Colours:
    """The colours of PNG's gAMA (the exponent of encoding) and cHRM; of what is absent, or zero, those of sRGB."""
    near_srgb = not gamma or abs(gamma * 2.2 - 1) < _NEAR
    exponent = 1 / gamma if gamma else 0.0
    usable = chromaticities and all(chromaticities[i] > 0 for i in (1, 3, 5, 7))
    return Colours(chromaticities if usable and chromaticities else SRGB, _SRGB_CURVE if near_srgb else lambda v: v**exponent)


def nclx(head: bytes) -> tuple[int, int] | None:
    """The codes of primaries and transfer in the boxes at the start of an AVIF or HEIF file; None where there are none.

    Where there are several, the first is the picture's; the others are of thumbnails and gain maps.
    """
    at = head.find(b"colrnclx")
    if at < 0 or len(head) < at + 12:
        return None
    return int.from_bytes(head[at + 8 : at + 10], "big"), int.from_bytes(head[at + 10 : at + 12], "big")


def convert(pixels: NDArray[np.uint8], colours: Colours) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 in some colours -> the same in sRGB; values outside sRGB are clipped."""
    light = colours.curve(np.arange(256) / 255).astype(np.float32)
    try:
        matrix = (np.linalg.inv(_to_xyz(SRGB)) @ _to_xyz(colours.chromaticities)).astype(np.float32)
    except np.linalg.LinAlgError as error:
        raise UnknownColoursError("primaries that lie on a line") from error
    converted = np.empty_like(pixels)
    for row, line in enumerate(pixels):  # row by row, for the sake of memory
        values = np.clip(light[line] @ matrix.T, 0, 1)
        encoded = np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
        converted[row] = np.rint(encoded * 255)
    return converted


def _to_xyz(chromaticities: Chromaticities) -> Floats:
    """The matrix from linear RGB to XYZ with white at D65; another white is adapted to it in Bradford's cones."""
    xy = np.array(chromaticities).reshape(4, 2)
    xyz = np.column_stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(axis=1)) / xy[:, 1]])
    white, primaries = xyz[0], xyz[1:].T
    matrix: Floats = primaries * np.linalg.solve(primaries, white)
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    target = np.array([_D65[0] / _D65[1], 1, (1 - sum(_D65)) / _D65[1]])
    scale = np.diag((cones @ target) / (cones @ white))
    adapted: Floats = np.linalg.inv(cones) @ scale @ cones @ matrix
    return adapted


def convert_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an L, RGB or CMYK image from an ICC profile to sRGB; as it is, where that would change no value by more than one.

    Raises:
        ImageCms.PyCMSError, OSError, ValueError: the profile is broken, or is not of such an image.
    """
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    if image.mode == "L" and source.profile.xcolor_space.strip() == "RGB":
        image = image.convert("RGB")
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB")
    if image.mode in ("L", "RGB"):
        # A profile's name says nothing: linear ones are called sRGB too. Its effect on a grid of colours does.
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
        probe = Image.fromarray(grid).convert(image.mode)
        change = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int) - np.asarray(probe.convert("RGB"))
        if np.abs(change).max() <= 1:
            return image
    return ImageCms.applyTransform(image, transform) or image
