"""The codec: image -> `.dlf` bytes -> image, with the neural stages of one bundle on one backend, one by one or in batches.

Between the stages stands the entropy core (`dlf.runtime.core`), which alone decides what the coder sees.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dlf.runtime import builtin, images
from dlf.runtime.backends import Arrays, Backend, Stage, open_backend
from dlf.runtime.bundle import Bundle
from dlf.runtime.core import TOKENS_PER_TILE as TOKENS
from dlf.runtime.core import FileInfo, Limits, detail_stream, parse_file, unpack_tokens, write_file
from dlf.runtime.errors import BackendFailedError, BundleBrokenError, DLFError, InvalidArgumentError, WrongModelError

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)


class Codec:
    """Encodes and decodes with one bundle.

    Stages are loaded when they are first needed, so that a codec that only encodes never loads the decoder. Not for use
    by several threads at a time.

    Args:
        bundle: the bundle's folder; by default the built-in model's.
        backend: "openvino" or "onnxruntime"; by default the first of them that is installed.
        threads: CPU threads; by default as many as the backend chooses.
        limits: the largest image that is encoded or decoded.
        checksum: whether encoded files carry a checksum (2 bytes); without it some damage decodes to a wrong picture.
        low_memory: drop each stage once it has run, to load it again for the next image.

    Attributes:
        bundle: the open bundle.
        backend: the backend in use; tells its name, device, precision and library versions.
        timings: seconds that each step of the last call took; "load" is the loading of stages.

    Raises:
        BundleForeignError, BundleBrokenError: of the bundle, see `Bundle`.
        BackendMissingError, BackendFailedError: of the backend, see `open_backend`.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | None = None,
        backend: str | None = None,
        threads: int | None = None,
        *,
        limits: Limits | None = None,
        checksum: bool = True,
        low_memory: bool = False,
    ) -> None:
        self.bundle = Bundle(builtin.path() if bundle is None else bundle)
        self.backend: Backend = open_backend(backend, threads)
        self.timings: dict[str, float] = {}
        self._entropy = self.bundle.entropy
        self._limits = limits
        self._checksum = checksum
        self._low_memory = low_memory
        self._stages: dict[str, Stage] = {}
        versions = ", ".join(f"{library} {version}" for library, version in self.backend.versions.items())
        _log.info(
            "Model %s (%s) on %s (%s, %s, %s).",
            self.bundle.name,
            self.bundle.fingerprint,
            self.backend.name,
            self.backend.device,
            self.backend.precision,
            versions,
        )

    def encode(self, image: images.ImageLike) -> bytes:
        """Return the image as the bytes of a `.dlf` file.

        `image` is an (H, W, 3) or (H, W) uint8 array, a Pillow image, a path or a binary file; see `images.load`.

        Raises:
            ImageError, SizeLimitError: of the image, see `images.load`.
            BundleBrokenError, BackendFailedError: the analysis stage cannot be loaded or run.
        """
        self.timings = {}
        return self._encode_batch([self._load(image)])[0]

    def encode_many(self, images: Iterable[images.ImageLike], batch: int = 4) -> list[bytes]:
        """Return the images as the bytes of `.dlf` files, in their order; see `encode`.

        Images of one padded size go through the analysis stage together, up to `batch` at a time, and share its `timings`.
        The images may be of any sizes, and are loaded as they are needed: at most `batch` of each padded size are in memory.

        Raises:
            InvalidArgumentError: `batch` is below 1.
            DLFError: what `encode` raises of an image. Then nothing is returned; the error's `index` and its message tell
                which image it is, counted from 0.
        """
        self.timings = {}
        loaded = (_indexed(index, self._load, image) for index, image in enumerate(images))
        return _by_batches(self._encode_batch, loaded, lambda pixels: _tiles(*pixels.shape[:2]), batch)

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        """Return the image of a `.dlf` file, given as its bytes: (H, W, 3) uint8, sRGB.

        All that can be checked without a model is checked first; the neural stages run last, on data that are whole.

        Raises:
            NotDLFError, UnsupportedVersionError, TruncatedError, TrailingBytesError, ChecksumError, TokensMissingError,
            StreamCorruptError: the file is damaged or foreign.
            SizeLimitError: the image is larger than the limits allow.
            WrongModelError: another model wrote it.
            BundleBrokenError, BackendFailedError: a stage cannot be loaded or run.
        """
        self.timings = {}
        return self._decode_batch([self._latents(self._parse(data), data)])[0]

    def decode_many(self, files: Sequence[bytes], batch: int = 4) -> list[NDArray[np.uint8]]:
        """Return the images of `.dlf` files, given as their bytes, in their order; see `decode`.

        Images of one padded size go through the stages together, up to `batch` at a time, and share their `timings`. All that
        can be checked without decoding, of all files, is checked first. The last bits of a stage's floats may depend on
        the batch, and with them the last bit of a pixel.

        Raises:
            InvalidArgumentError: `batch` is below 1.
            DLFError: what `decode` raises of a file. Then nothing is returned; the error's `index` and its message tell which
                file it is, counted from 0.
        """
        self.timings = {}
        parsed = [_indexed(index, self._parse, data) for index, data in enumerate(files)]
        latents = (_indexed(index, self._latents, *each) for index, each in enumerate(zip(parsed, files, strict=True)))
        return _by_batches(self._decode_batch, latents, lambda each: _tiles(each.height, each.width), batch)

    def close(self) -> None:
        """Release the loaded stages; they are loaded again should the codec be used again."""
        self._stages.clear()

    def __enter__(self) -> "Codec":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load(self, image: images.ImageLike) -> images.Pixels:
        with self._timed("image"):
            return images.load(image, self._limits)

    def _encode_batch(self, pixels: Sequence[images.Pixels]) -> list[bytes]:
        """The files of images of one padded size."""
        count, (down, across) = len(pixels), _tiles(*pixels[0].shape[:2])
        with self._timed("image"):
            batch = _joined([images.pad_to_tiles(each) for each in pixels])
        latents = self._run("analysis", {"image": batch})
        z = self._checked("analysis", latents, "z", (count, down, across, self._entropy.codebook_dim, TOKENS))
        y = self._checked("analysis", latents, "y", (count, self._entropy.channels, 8 * down, 8 * across))
        with self._timed("vq"):
            tokens = self._entropy.vq_lookup(z.reshape(count * down * across, -1, TOKENS)).reshape(count, -1, TOKENS)
        with self._timed("detail"):
            details = [self._entropy.encode_detail(each)[0] for each in y]
        return [
            write_file(
                width=each.shape[1],
                height=each.shape[0],
                fingerprint=self._entropy.fingerprint,
                token_bits=self._entropy.token_bits,
                tokens=found,
                detail=detail,
                checksum=self._checksum,
            )
            for each, found, detail in zip(pixels, tokens, details, strict=True)
        ]

    def _parse(self, data: bytes) -> FileInfo:
        """What a file's header tells, if this bundle's model wrote the file."""
        file = parse_file(data, self._limits)
        if (file.fingerprint, file.token_bits) != (self._entropy.fingerprint, self._entropy.token_bits):
            raise WrongModelError(
                f"it was written with model {file.fingerprint:04x} ({file.token_bits} bits a token), and the bundle "
                f"{self.bundle.path} holds model {self.bundle.fingerprint} ({self._entropy.token_bits} bits a token); "
                "decode it with the bundle that wrote it"
            )
        return file

    def _latents(self, file: FileInfo, data: bytes) -> "_Latents":
        down, across = _tiles(file.height, file.width)
        with self._timed("vq"):
            z_hat = self._entropy.vq_embed(unpack_tokens(data, file))
        with self._timed("detail"):
            y_hat = self._entropy.decode_detail(detail_stream(data, file), 8 * down, 8 * across)
        return _Latents(file.height, file.width, z_hat.reshape(1, down, across, -1, TOKENS), y_hat[None])

    def _decode_batch(self, latents: Sequence["_Latents"]) -> list[images.Pixels]:
        """The images of latents of one padded size."""
        down, across = _tiles(latents[0].height, latents[0].width)
        arrays = {"z_hat": _joined([each.z_hat for each in latents]), "y_hat": _joined([each.y_hat for each in latents])}
        for stage in ("synthesis", "adaptor", "generator"):
            arrays = self._run(stage, arrays)
        shape = (len(latents), 3, images.TILE * down, images.TILE * across)
        decoded = self._checked("generator", arrays, "image", shape)
        with self._timed("image"):
            return [images.crop_to_pixels(decoded[i : i + 1], each.height, each.width) for i, each in enumerate(latents)]

    def _run(self, name: str, inputs: Arrays) -> Arrays:
        with self._timed("load"), self._failures(name, "load"):
            stage = self._stages.get(name) or self.backend.load(self.bundle.stage(name))
        if not self._low_memory:
            self._stages[name] = stage
        with self._timed(name), self._failures(name, "run"):
            return stage(inputs)

    def _checked(self, stage: str, arrays: Arrays, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """An output of a stage, if it is what the entropy core and the caller can take."""
        found = arrays[name].shape if name in arrays else "nothing"
        if found != shape:
            raise BundleBrokenError(
                f"Bundle {self.bundle.path}: stage {stage} gives {found} as {name}, not {shape}; export the bundle again."
            )
        if not np.isfinite(arrays[name]).all():
            raise BackendFailedError(f"Stage {stage} gave values that are not finite as {name}, on {self.backend.name}.")
        return arrays[name]

    @contextmanager
    def _failures(self, stage: str, action: str) -> Iterator[None]:
        try:
            yield
        except (BundleBrokenError, MemoryError):
            raise
        except Exception as error:
            raise BackendFailedError(
                f"{self.backend.name} could not {action} stage {stage} of {self.bundle.path} ({type(error).__name__}: {error})."
            ) from error

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = perf_counter()
        yield
        seconds = perf_counter() - start
        self.timings[step] = self.timings.get(step, 0) + seconds
        _log.debug("%s: %.3f s", step, seconds)


@dataclass(frozen=True)
class _Latents:
    """What the entropy core makes of one file: the inputs of `synthesis`, as a batch of one, for an image of this size."""

    height: int
    width: int
    z_hat: NDArray[np.float32]
    y_hat: NDArray[np.float32]


def _tiles(height: int, width: int) -> tuple[int, int]:
    """The tiles down and across of the padded image."""
    return -(-height // images.TILE), -(-width // images.TILE)


def _joined(batches: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Batches as one."""
    return batches[0] if len(batches) == 1 else np.concatenate(batches)


def _indexed(index: int, work: Callable[..., T], *arguments: Any) -> T:
    """The work on one of many items; a refusal tells which."""
    try:
        return work(*arguments)
    except DLFError as error:
        error.index = index
        error.args = (f"item {index}: {error}",)
        raise


def _by_batches(
    work: Callable[[Sequence[T]], list[R]], items: Iterable[T], size: Callable[[T], tuple[int, int]], batch: int
) -> list[R]:
    """The results of `work` on batches of items of one size, in the order of the items; each batch as soon as it is full."""
    if batch < 1:
        raise InvalidArgumentError(f"batch is {batch}; it must be at least 1.")
    results: dict[int, R] = {}
    waiting: dict[tuple[int, int], dict[int, T]] = {}

    def flush(group: dict[int, T]) -> None:
        results.update(zip(group, work(list(group.values())), strict=True))

    for index, item in enumerate(items):
        group = waiting.setdefault(size(item), {})
        group[index] = item
        if len(group) == batch:
            flush(waiting.pop(size(item)))
    for group in waiting.values():
        flush(group)
    return [results[index] for index in range(len(results))]
