"""A Pillow plugin: after `import dlf.pillow`, Pillow opens and saves `.dlf` files, and so does imageio through it.

    Image.open("photo.dlf").size                     reads the header alone, without a model
    Image.open("photo.dlf").convert("L")             decodes when the pixels are needed
    image.save("photo.dlf", model="bundle", backend="openvino")
    image.save("photo.dlf", model="models", target_bytes=1000)      or quality= or target_bpp=: those of dlf.Codec.encode
    image.save("photo.dlf", exif=image.info["exif"])                none is kept by default; xmp= likewise

Files are opened with the model that `configure` names, by default the built-in one. A model stays loaded from one call to the
next. Pillow's functions raise OSError for what `dlf` refuses, with its message; the cause is dlf's own error.
"""

import os
import threading
from functools import lru_cache, partial
from io import BytesIO
from typing import IO, Any

from PIL import Image, ImageFile

import dlf
from dlf.runtime.formats import SIGNATURE
from dlf.runtime.info import Info
from dlf.runtime.metadata import in_pillow, upright

__all__ = ["FORMAT", "MIME_TYPE", "DLFImageFile", "configure"]

FORMAT = "DLF"
MIME_TYPE = "image/x-dlf"
_KEPT = 2  # codecs that stay loaded
_RATE = ("quality", "target_bytes", "target_bpp")  # options of saving that are those of `Codec.encode`

# A codec serves one thread at a time.
_lock = threading.RLock()
_defaults: dict[str, Any] = {"model": None, "backend": None, "threads": None}


def configure(model: str | os.PathLike[str] | None = None, backend: str | None = None, threads: int | None = None) -> None:
    """Choose the model, the backend and the threads of files that are opened from now on, and the defaults of saving.

    The arguments are those of `dlf.Codec`. The codec is opened when it is first needed.
    """
    with _lock:
        _defaults.update(model=model, backend=backend, threads=threads)


class DLFImageFile(ImageFile.ImageFile):
    """An open `.dlf` file. `info["dlf"]` is its `dlf.Info`: the model's fingerprint, the bits per pixel and more.

    `info["exif"]` and `info["xmp"]` are the metadata that it keeps, if any.
    """

    format = FORMAT
    format_description = "DLF (Dual-generative Latent Fusion)"

    def _open(self) -> None:
        assert self.fp is not None
        self._file: bytes | None = self.fp.read()
        try:
            found: Info = dlf.info(self._file)
        except (dlf.NotDLFError, dlf.UnsupportedVersionError) as error:
            raise SyntaxError(str(error)) from error  # Pillow then tries its other formats
        except dlf.DLFError as error:
            raise OSError(str(error)) from error
        self._size = (found.width, found.height)
        self._mode = "RGB"
        self.info["dlf"] = found
        self.info.update(in_pillow(dlf.read_metadata(self._file)))

    def load(self) -> Any:
        """Decode the file, unless that has been done."""
        if self._file is not None:
            with _lock:
                pixels = _call(_codec(**_defaults).decode, self._file)
            self._file = None
            if self.fp is not None and self._exclusive_fp:
                self.fp.close()
            # From here on it is a file of raw pixels, which Pillow reads by itself.
            self.fp = BytesIO(pixels.tobytes())
            self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
        return super().load()


@lru_cache(maxsize=_KEPT)
def _codec(model: str | os.PathLike[str] | None, backend: str | None, threads: int | None) -> dlf.Codec:
    codec: dlf.Codec = _call(dlf.Codec, model, backend, threads)
    return codec


def _call(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (dlf.DLFError, ValueError) as error:
        raise OSError(str(error)) from error


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(SIGNATURE) and len(prefix) >= 2 and prefix[1] >> 5 in (1, 2, 3, 4)  # the version


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    with _lock:
        wanted = {name: image.encoderinfo.get(name, default) for name, default in _defaults.items()}
        rate: dict[str, Any] = {name: image.encoderinfo.get(name) for name in _RATE}
        exif, xmp = (image.encoderinfo.get(name) or b"" for name in ("exif", "xmp"))
        kept = _call(upright, exif.tobytes() if isinstance(exif, Image.Exif) else exif, xmp)
        data = _call(partial(_codec(**wanted).encode, **rate, metadata=kept), image)
    file.write(data)


Image.register_open(FORMAT, DLFImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, ".dlf")
Image.register_mime(FORMAT, MIME_TYPE)
