"""Pictures in and out: whatever a user has -> (H, W, 3) uint8 sRGB -> the float batch that the stages work on, and back."""

import logging
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from dlf.runtime import color, jpeg, metadata, png
from dlf.runtime.errors import DLFError, ImageError, SizeLimitError
from dlf.runtime.files import write_atomically
from dlf.runtime.formats import TILE
from dlf.runtime.libdlf import Limits, Metadata
from dlf.runtime.pillow import open_unlimited

Pixels: TypeAlias = NDArray[np.uint8]
Batch: TypeAlias = NDArray[np.float32]
ImageLike: TypeAlias = NDArray[Any] | Image.Image | str | os.PathLike[str] | BinaryIO


_log = logging.getLogger(__name__)
_HEAD = 1 << 16  # bytes in which the boxes of an AVIF or HEIF file tell its colours
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PNG_LEVEL = 1  # takes a sixth of the time of zlib's default, 6, and 15 % more bytes for decoded photographs
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262


def load(image: ImageLike, limits: Limits | None = None) -> Pixels:
    """Return an image as an (H, W, 3) uint8 array of sRGB values.

    `image` is an array, (H, W, 3) or (H, W), of uint8; a Pillow image; the path of a file that Pillow reads; or a binary
    file object. From files and Pillow images: the EXIF orientation is applied; grayscale, palette, CMYK and other modes
    are converted; colours that the file declares (an ICC profile, PNG's cICP, gAMA and cHRM, AVIF's and HEIF's nclx) are
    converted to sRGB; 16 bits a channel become 8. With a warning in the log, what is transparent is laid over white, of an
    animation the first frame is taken, colours that cannot be converted are taken as sRGB, EXIF that cannot be read is
    ignored, and of a JPEG that was closed too early what is there is taken. PNG's metadata that no picture needs is not read.

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
            if (file := _unread(image)) is not None:
                return _from_file(file, name, limits)
            return _from_pillow(image, name, limits)
    if isinstance(image, (str, os.PathLike)):
        name = os.fspath(image)
        with _failures(name), open(name, "rb") as file:
            return _from_file(file, name, limits)
    if hasattr(image, "read"):
        with _failures("image"):
            return _from_file(image, "image", limits)
    raise ImageError(
        f"image: {type(image).__name__} is not supported; give an (H, W, 3) uint8 array, a PIL image, a path or a binary file."
    )


def metadata_of(image: ImageLike) -> Metadata:
    """Return the EXIF and XMP of an image, as `load` turns it: the orientation in them is that of an upright picture.

    `image` is what `load` takes; an array has none. Empty is what the file lacks, and, with a warning in the log, EXIF
    that cannot be read. JPEG, PNG, WebP, AVIF and HEIF files have them where dlf looks.

    Raises:
        ImageError: the image cannot be read.
    """
    if isinstance(image, np.ndarray):
        return Metadata()
    if isinstance(image, Image.Image):
        return _upright(*metadata.from_pillow(image.info), "image")
    if isinstance(image, (str, os.PathLike)):
        name = os.fspath(image)
        with _failures(name), open(name, "rb") as file:
            return _metadata_in(file, name)
    with _failures("image"):
        return _metadata_in(image, "image")


def _metadata_in(file: BinaryIO, name: str) -> Metadata:
    file = _seekable(file)
    is_png = file.read(len(png.SIGNATURE)) == png.SIGNATURE
    file.seek(0)
    with open_unlimited(BytesIO(png.simplify(file.read()).data) if is_png else file) as picture:
        if is_png:
            picture.load()  # of its chunks, some may follow the pixels
        return _upright(*metadata.from_pillow(picture.info), name)


def _upright(exif: bytes, xmp: bytes, name: str) -> Metadata:
    try:
        return metadata.upright(exif, xmp)
    except ValueError as error:
        _log.warning("%s: its EXIF cannot be read (%s), and is not kept.", name, error)
        return metadata.upright(b"", xmp)


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
        ImageError: Pillow writes no such format, or it cannot hold a colour picture as it is.
    """
    Image.preinit()  # of PNG, JPEG and BMP; all formats take longer to import than a picture to write
    name = Image.EXTENSION.get(suffix.lower()) or Image.registered_extensions().get(suffix.lower())
    if name not in Image.SAVE or suffix.lower() in (".pbm", ".pgm", ".pfm"):
        raise ImageError(f"no image format is known for the suffix {suffix!r}; use .png, .jpg, .webp, .tif or .bmp.")
    _encode(np.zeros((40, 70, 3), np.uint8), name)  # a sample: icons have sizes of their own, GIF has 256 colours
    return name


def encode_as(pixels: Pixels, suffix: str, png_level: int = PNG_LEVEL, kept: Metadata | None = None) -> bytes:
    """Return an image file of the format of a suffix: lossy formats at quality 95, PNG at a compression level of 0..9.

    The metadata `kept` are written into PNG, JPEG, WebP and AVIF; with a warning in the log, they are left out of other formats,
    and where they are too large for the format.

    Raises:
        ImageError: Pillow writes no such format, or not at this size, or the format cannot hold the picture.
    """
    name = format_of(suffix)
    if kept is None or kept == Metadata():
        return _encode(pixels, name, png_level)
    if name not in metadata.FORMATS:
        _log.warning("The metadata are left out: %s files get none, but PNG, JPEG, WebP and AVIF do.", name)
        return _encode(pixels, name, png_level)
    try:
        return _encode(pixels, name, png_level, **metadata.save_options(name, kept))
    except ImageError as error:
        _log.warning("The metadata are left out: %s", error)
        return _encode(pixels, name, png_level)


def _encode(pixels: Pixels, name: str, png_level: int = PNG_LEVEL, **options: Any) -> bytes:
    height, width, _ = pixels.shape
    buffer = BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, name, quality=95, compress_level=png_level, **options)
        with open_unlimited(buffer) as written:
            held = written.size == (width, height) and written.mode in ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
    except (OSError, ValueError, KeyError, struct.error) as error:  # Pillow's writers raise all of these
        raise ImageError(f"an image of {width}x{height} cannot be written as {name} ({error}).") from error
    if not held:
        raise ImageError(f"the format {name} cannot hold the picture: it changes its size or its colours; use .png.")
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


def _unread(image: Image.Image) -> BinaryIO | None:
    """The file of a PNG or JPEG that is open but of which nothing was read yet; it tells more than Pillow does."""
    file = getattr(image, "fp", None)
    if image.format not in ("PNG", "JPEG") or not getattr(image, "tile", None) or file is None:
        return None
    at = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(at)
    return BytesIO(data)


def _seekable(file: BinaryIO) -> BinaryIO:
    """The file at its start; of a pipe, its content."""
    try:
        file.seek(0)
        return file
    except (AttributeError, OSError):
        return BytesIO(file.read())


def _from_file(file: BinaryIO, name: str, limits: Limits) -> Pixels:
    """The picture of an image file, and what is found out about it beside Pillow."""
    file = _seekable(file)
    head = file.read(_HEAD)
    if not head.startswith(png.SIGNATURE):
        with open_unlimited(file) as picture:
            check_size(*picture.size, limits, name)
            codes = color.nclx(head) if head[4:8] == b"ftyp" else None
            pixels = _from_pillow(picture, name, limits, codes)
        if head.startswith(jpeg.SIGNATURE):
            file.seek(0)
            if jpeg.ends_early(file.read()):
                _log.warning("%s: the file ends before its picture does; what is missing is gray or blurred.", name)
        return pixels
    check_size(int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"), limits, name)
    simple = png.simplify(head + file.read())
    for kind in simple.dropped:
        _log.warning("%s: its %s is too large, and is not used.", name, {"iCCP": "colour profile", "eXIf": "EXIF"}[kind])
    codes = simple.cicp[:2] if simple.cicp else None
    with open_unlimited(BytesIO(simple.data)) as picture:
        transparent = picture.info.pop("transparency", None) if picture.mode in ("L", "I;16", "RGB") else None
        if transparent is None:
            return _from_pillow(picture, name, limits, codes)
        return _from_pillow(picture, name, limits, codes, Image.fromarray(_differing(simple, picture.mode, transparent)))


def _differing(file: png.PNG, mode: str, transparent: int | tuple[int, ...]) -> NDArray[np.uint8]:
    """(H, W) uint8, 255 where a PNG without an alpha channel differs from the one value that it declares as transparent."""
    with open_unlimited(BytesIO(file.data)) as picture:
        samples = np.asarray(picture).astype(np.int32)
    if mode == "RGB" and file.depth == 16:
        with open_unlimited(BytesIO(file.data)) as picture:  # once more, for the other 8 bits of each sample
            picture.tile = [tile._replace(args="RGB;16L") for tile in picture.tile]  # type: ignore[attr-defined]
            samples = 256 * samples + np.asarray(picture)
    if mode == "L":
        samples //= 255 // ((1 << file.depth) - 1)  # Pillow spreads those of 1, 2 and 4 bits
    different = np.atleast_3d(samples != np.asarray(transparent)).any(axis=-1)
    return np.where(different, np.uint8(255), np.uint8(0))


def _from_pillow(
    image: Image.Image,
    name: str,
    limits: Limits,
    codes: tuple[int, int] | None = None,
    alpha: Image.Image | None = None,
) -> Pixels:
    """The picture of a Pillow image; `codes` (of its colours) and `alpha` are what its file declares beside Pillow."""
    check_size(*image.size, limits, name)
    if getattr(image, "is_animated", False) and image.format != "MPO":  # an MPO is a JPEG with its previews
        _log.warning("%s: has several frames; only one is used.", name)
    # 16-bit gray is "I;16" or, from some readers, "I"; an "I" or "F" of another origin has no fixed range.
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise ImageError(f"{name}: 32-bit samples (mode {image.mode}) have no fixed range; scale them to 8 bits first.")
    image.load()
    if (turn := _orientation(image, name)) is not None:
        image = _with_info(image.transpose(turn), image)
        alpha = alpha and alpha.transpose(turn)
    if image.mode.startswith("I"):
        image = _eight_bits(image)

    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
    if image.mode in ("1", "LA"):
        image = _with_info(image.convert("L"), image)
    elif image.mode in ("P", "PA", "RGBA", "RGBa"):
        image = _with_info(image.convert("RGBA").convert("RGB"), image)
    pixels = _in_srgb(image, name, codes)
    if alpha is None or alpha.getextrema()[0] == 255:
        return pixels
    _log.warning("%s: has transparent parts; they are laid over white.", name)
    image = Image.fromarray(pixels)
    return np.array(Image.composite(image, Image.new("RGB", image.size, "white"), alpha))


def _with_info(image: Image.Image, original: Image.Image) -> Image.Image:
    """A converted image with what the file told of the colours."""
    image.info = original.info
    return image


def _orientation(image: Image.Image, name: str) -> Image.Transpose | None:
    """How to turn an image upright, by its EXIF. The orientation alone is read: damage elsewhere does not matter."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow says of damaged EXIF
            return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # Pillow's reader of EXIF raises nearly anything
        _log.warning("%s: its EXIF cannot be read (%s); the picture is taken as upright.", name, error)
        return None


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit gray in 8 bits. In TIFF, Pillow leaves 12-bit samples in their range, and white as 0 where the file has it so."""
    samples = np.asarray(image).astype(np.float32)
    tags = getattr(image, "tag_v2", {})
    full = (1 << tags.get(_TIFF_BITS, (16,))[0]) - 1
    if tags.get(_TIFF_PHOTOMETRIC) == 0:
        samples = full - samples
    gray = Image.fromarray(np.rint(samples * (255 / full)).astype(np.uint8))
    return _with_info(gray, image)


def _in_srgb(image: Image.Image, name: str, codes: tuple[int, int] | None) -> Pixels:
    """The pixels in sRGB. Of several declarations the first in PNG's order holds: codes, profile, sRGB, gamma and primaries."""
    info = image.info
    colours = None
    try:
        if codes and not (info.get("icc_profile") and image.format != "PNG"):
            colours = color.from_codes(*codes)
        elif info.get("icc_profile"):
            image = color.convert_profile(image, info["icc_profile"])
        elif "srgb" not in info and ("gamma" in info or "chromaticity" in info):
            colours = color.from_gamma(info.get("gamma"), info.get("chromaticity"))
        pixels = np.array(image.convert("RGB"))
        return pixels if colours is None or colours.are_srgb else color.convert(pixels, colours)
    except color.UnknownColoursError as error:
        _log.warning("%s: declares %s, which is not converted; the values are taken as sRGB.", name, error)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        _log.warning("%s: its colour profile cannot be used (%s); the values are taken as sRGB.", name, error)
    return np.array(image.convert("RGB"))
