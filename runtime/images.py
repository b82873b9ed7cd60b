"""Pictures in and out: whatever a user has -> (H, W, 3) uint8 sRGB -> the float batch that the stages work on, and back."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dlf.runtime.errors import DLFError, ImageError, SizeLimitError
from dlf.runtime.files import write_atomically
from dlf.runtime.formats import TILE
from dlf.runtime.libdlf import Limits

Pixels: TypeAlias = NDArray[np.uint8]
Batch: TypeAlias = NDArray[np.float32]
ImageLike: TypeAlias = NDArray[Any] | Image.Image | str | os.PathLike[str] | BinaryIO


_log = logging.getLogger(__name__)
_pillow_limit = threading.Lock()


def load(image: ImageLike, limits: Limits | None = None) -> Pixels:
    """Return an image as an (H, W, 3) uint8 array of sRGB values.

    `image` is an array, (H, W, 3) or (H, W), of uint8; a Pillow image; the path of a file that Pillow reads; or a binary
    file object. From files and Pillow images: the EXIF orientation is applied; grayscale, palette, CMYK and other modes
    are converted; an embedded colour profile is converted to sRGB; 16 bits a channel become 8; what is transparent is
    laid over white, and of an animation the first frame is taken, both with a warning in the log.

    Raises:
        ImageError: it cannot be read, is empty, or has a shape, type or mode that has no one meaning as a picture.
        SizeLimitError: it has more pixels, or a longer side, than `limits` allows; known before it is decoded.
    """
    limits = limits or Limits()
    if isinstance(image, np.ndarray):
        return _from_array(image, limits)
    if isinstance(image, Image.Image):
        name = getattr(image, "filename", "") or "image"
        with _failures(name):
            return _from_pillow(image, name, limits)
    if isinstance(image, (str, os.PathLike)):
        name = os.fspath(image)
        with _failures(name), open(name, "rb") as file, _open(file) as picture:
            return _from_pillow(picture, name, limits)
    if hasattr(image, "read"):
        with _failures("image"), _open(image) as picture:
            return _from_pillow(picture, "image", limits)
    raise ImageError(
        f"image: {type(image).__name__} is not supported; give an (H, W, 3) uint8 array, a PIL image, a path or a binary file."
    )


def pad_to_tiles(pixels: Pixels) -> Batch:
    """(H, W, 3) uint8 -> (1, 3, H', W') float32 in -1..1, its last column and row repeated up to multiples of 256."""
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, -height % TILE), (0, -width % TILE), (0, 0)), mode="edge")
    batch = padded.transpose(2, 0, 1)[None].astype(np.float32, order="C")
    batch /= 255
    batch *= 2
    batch -= 1
    return batch


def crop_to_pixels(batch: Batch, height: int, width: int) -> Pixels:
    """(1, 3, H', W') float32 -> (height, width, 3) uint8: the upper left part, -1..1 as 0..255, rounded and clipped."""
    values = (batch[0, :, :height, :width].transpose(1, 2, 0) / 2 + np.float32(0.5)) * 255
    return np.ascontiguousarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def format_of(suffix: str) -> str:
    """Return Pillow's name for the format that a suffix such as `.png` stands for.

    Raises:
        ImageError: Pillow writes no such format.
    """
    name = Image.registered_extensions().get(suffix.lower())
    if name not in Image.SAVE:
        raise ImageError(f"no image format is known for the suffix {suffix!r}; use .png, .jpg, .webp, .tif or .bmp.")
    return name


def encode_as(pixels: Pixels, suffix: str) -> bytes:
    """Return an image file of the format of a suffix (lossy formats at quality 95).

    Raises:
        ImageError: Pillow writes no such format, or not at this size.
    """
    name = format_of(suffix)
    buffer = BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, name, quality=95)
    except (OSError, ValueError) as error:
        raise ImageError(f"an image of {pixels.shape[1]}x{pixels.shape[0]} cannot be written as {name} ({error}).") from error
    return buffer.getvalue()


def save(pixels: Pixels, path: str | os.PathLike[str]) -> None:
    """Write an image to `path`, whole or not at all, in the format of its suffix (see `encode_as`)."""
    path = Path(path)
    write_atomically(path, encode_as(pixels, path.suffix))


def check_size(width: int, height: int, limits: Limits, name: str = "image") -> None:
    """Refuse an image that is empty (ImageError) or exceeds `limits` (SizeLimitError)."""
    if width < 1 or height < 1:
        raise ImageError(f"{name}: has no pixels ({width}x{height}).")
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        raise SizeLimitError(
            f"{name}: {width}x{height} exceeds the limit of {limits.max_pixels} pixels and {limits.max_side} a side; "
            "raise max_pixels or max_side, or cut the image up."
        )


def _from_array(array: NDArray[Any], limits: Limits) -> Pixels:
    if array.dtype != np.uint8:
        raise ImageError(f"image: an array of {array.dtype}; convert it to uint8, 0 to 255, first.")
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2) if array.size else array[:, :, None]
    elif array.ndim != 3 or array.shape[2] != 3:
        raise ImageError(f"image: an array of shape {array.shape}; it must be (H, W, 3) or, if gray, (H, W).")
    check_size(array.shape[1], array.shape[0], limits)
    return np.ascontiguousarray(array)


@contextmanager
def _failures(name: str) -> Iterator[None]:
    """Turn what goes wrong in reading an image into an ImageError."""
    try:
        yield
    except (DLFError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image, or of a format that Pillow does not read.") from error
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything, SyntaxError included
        raise ImageError(f"{name}: cannot be read as an image ({type(error).__name__}: {error}).") from error


def _open(file: BinaryIO) -> Image.Image:
    """`Image.open` without Pillow's own size limit, a global: `limits` are checked instead, also before anything is decoded."""
    with _pillow_limit:
        pillow_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = pillow_limit


def _from_pillow(image: Image.Image, name: str, limits: Limits) -> Pixels:
    check_size(*image.size, limits, name)
    if getattr(image, "is_animated", False) and image.format != "MPO":  # an MPO is a JPEG with its previews
        _log.warning("%s: has several frames; only one is used.", name)
    # 16-bit gray is "I;16" or, from some readers, "I"; an "I" or "F" of another origin has no fixed range.
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise ImageError(f"{name}: 32-bit samples (mode {image.mode}) have no fixed range; scale them to 8 bits first.")
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))

    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if image.mode in ("1", "LA"):
        image = image.convert("L")
    elif image.mode in ("P", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA").convert("RGB")
    if profile:
        image = _to_srgb(image, profile, name)
    image = image.convert("RGB")
    if alpha is not None and alpha.getextrema()[0] < 255:  # type: ignore[operator]
        _log.warning("%s: has transparent parts; they are laid over white.", name)
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    return np.array(image)


def _to_srgb(image: Image.Image, profile: bytes, name: str) -> Image.Image:
    """Convert an L, RGB or CMYK image from an embedded ICC profile to sRGB; unchanged, with a warning, where that fails."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):  # converting would only cost roundings
            return image
        if image.mode == "L" and source.profile.xcolor_space.strip() == "RGB":
            image = image.convert("RGB")
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        _log.warning("%s: its colour profile cannot be used (%s); the values are taken as sRGB.", name, error)
        return image
