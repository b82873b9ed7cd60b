"""The codec: encodes images to `.dlf` bytes and decodes them, singly or in batches.

It runs the neural stages of one bundle on one backend, and the other steps (`dlf.runtime.steps`) before, between and after them.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any, Literal, NoReturn, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from dlf.runtime import bundles, images, stages
from dlf.runtime.backends import Arrays, CanClose, Stage
from dlf.runtime.errors import (
    BackendFailedError,
    BundleBrokenError,
    InvalidArgumentError,
    WrongModelError,
    indexed,
    reindexed,
)
from dlf.runtime.formats import DECODER_STAGES, LARGE_BATCH, TILE, tiles
from dlf.runtime.formats import TOKENS_PER_TILE as TOKENS
from dlf.runtime.gpu.arrays import SupportsDLPack
from dlf.runtime.libdlf import FileInfo, Limits, detail_stream, parse_file, unpack_tokens
from dlf.runtime.steps import steps_of

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)


class Codec:
    """Encodes images to `.dlf` files and decodes them, with one bundle on one backend.

    Stages are loaded when they are first needed, so that a codec that only encodes never loads the decoder. Not for use
    by several threads at a time.

    Args:
        bundle: the bundle's folder, or a folder of bundles of one model in several precisions, of which the one is used
            that the backend runs fastest; by default the built-in model.
        backend: "openvino", "onnxruntime", "tensorrt" or "onnxruntime-tensorrt"; by default the one that runs one of the
            bundles fastest on this machine.
        threads: CPU threads; by default as many as the backend chooses.
        limits: the largest image that is encoded or decoded.
        memory_limit: bytes that this process may hold at its peak; images that would take more are refused before any stage
            runs, by what the bundle says of its stages on the backend. By default what the machine, and the control groups
            of this process, leave it.
        checksum: whether encoded files carry a checksum (2 bytes); without it some damage decodes to a wrong picture.
        low_memory: release each stage after it has run, and load it again for the next image.
        stream: on a GPU, the handle of the CUDA stream on which the caller writes images and reads results.
        device: "cpu", "cuda", or "cuda:1" for the second GPU. By default a GPU if `dlf doctor` has passed on it with this bundle,
            or if the backend runs only there; otherwise the CPU.

    Attributes:
        bundle: the open bundle, with the model's name, fingerprint, precision and licence.
        backend: the backend in use, with its name, device, precision and library versions.
        timings: seconds that each step of the last call took; "load" is the loading of stages.

    Raises:
        BundleForeignError, BundleBrokenError: the bundle cannot be used, see `bundles.select`.
        BackendMissingError, BackendFailedError: the backend cannot be opened, see `bundles.select`.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | None = None,
        backend: str | None = None,
        threads: int | None = None,
        *,
        limits: Limits | None = None,
        memory_limit: int | None = None,
        checksum: bool = True,
        low_memory: bool = False,
        stream: int | None = None,
        device: str | None = None,
    ) -> None:
        selected = bundles.select(bundle, backend, threads, stream, device)
        self.bundle, self.backend = selected.bundle, selected.backend
        self.timings: dict[str, float] = {}
        self._entropy = self.bundle.entropy
        self._limits = limits or Limits()
        if memory_limit is not None and memory_limit < 1:
            raise InvalidArgumentError(f"memory_limit is {memory_limit}; it must be at least 1 byte.")
        self._memory_limit = memory_limit
        self._checksum = checksum
        self._low_memory = low_memory
        self._stages: dict[str, Stage] = {}
        self._steps = steps_of(self.backend, self.bundle, self._timed)
        versions = ", ".join(f"{library} {version}" for library, version in self.backend.versions.items())
        _log.info(
            "Model %s (%s, licence: %s) in %s (%s) on %s (%s, %s, %s).",
            self.bundle.name,
            self.bundle.fingerprint,
            self.bundle.license or "unknown",
            self.bundle.precision,
            selected.why_bundle,
            self.backend.name,
            selected.why_backend,
            self.backend.device,
            versions,
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Codec holds an open model and cannot be pickled or copied; open one in each process.")

    def encode(self, image: images.ImageLike | SupportsDLPack) -> bytes:
        """Return the image as the bytes of a `.dlf` file.

        `image` is an (H, W, 3) or (H, W) uint8 array, a Pillow image, a path or a binary file; see `images.load`. On a
        GPU it may also be an (H, W, 3) uint8 array there, of torch, CuPy or another library.

        Raises:
            ImageError, SizeLimitError: the image cannot be used, see `images.load`.
            OutOfMemoryError: it would take more memory than `memory_limit`.
            BundleBrokenError, BackendFailedError: the analysis stage cannot be loaded or run.
        """
        self.timings = {}
        return self._encode_batch([self._load(image)])[0]

    def encode_many(self, images: Iterable[images.ImageLike | SupportsDLPack], batch: int = 4) -> list[bytes]:
        """Return the bytes of one `.dlf` file for each image, in the same order; see `encode`.

        Images of one padded size go through the analysis stage together, up to `batch` at a time, and share its `timings`.
        The images may be of any sizes, and are loaded as they are needed: at most `batch` of each padded size are in memory.

        Raises:
            InvalidArgumentError: `batch` is below 1.
            DLFError: `encode` raises it for one of the images. Nothing is returned; the error's `index` and its message say
                which image it is, counted from 0.
        """
        self.timings = {}
        loaded = (indexed(index, self._load, image) for index, image in enumerate(images))
        return _by_batches(self._encode_batch, loaded, lambda pixels: tiles(*pixels.shape[:2]), batch)

    @overload
    def decode(
        self, data: bytes | bytearray | memoryview, *, detail: bool = True, on_device: Literal[False] = False
    ) -> images.Pixels: ...
    @overload
    def decode(self, data: bytes | bytearray | memoryview, *, detail: bool = True, on_device: bool) -> Any: ...
    def decode(self, data: bytes | bytearray | memoryview, *, detail: bool = True, on_device: bool = False) -> Any:
        """Return the image of a `.dlf` file, given as its bytes: (H, W, 3) uint8, sRGB.

        It is a NumPy array. With `on_device` and a backend on a GPU it is a `DeviceArray` there, which torch, CuPy
        and other libraries use without a copy.

        Without `detail` it is a preview: the image that the file's tokens alone tell. Tokens stand first in a file, which may be
        cut off anywhere behind them; damage behind them is not noticed.

        Everything that can be checked without a model is checked first. The neural stages run last, and only on a valid file.

        Raises:
            NotDLFError, UnsupportedVersionError: it is no such file.
            TruncatedError, TrailingBytesError, ChecksumError, TokensMissingError, StreamCorruptError: the file is damaged.
            SizeLimitError: the image is larger than the limits allow.
            OutOfMemoryError: it would take more memory than `memory_limit`.
            WrongModelError: another model wrote it.
            BundleBrokenError, BackendFailedError: a stage cannot be loaded or run.
        """
        self.timings = {}
        data = bytes(data) if isinstance(data, (bytearray, memoryview)) else data
        with reindexed([None]):
            return self._decode_batch([(self._parse(data, detail), data)], detail, on_device)[0]

    @overload
    def decode_many(
        self,
        files: Sequence[bytes | bytearray | memoryview],
        batch: int = 4,
        *,
        detail: bool = True,
        on_device: Literal[False] = False,
    ) -> list[images.Pixels]: ...
    @overload
    def decode_many(
        self, files: Sequence[bytes | bytearray | memoryview], batch: int = 4, *, detail: bool = True, on_device: bool
    ) -> list[Any]: ...
    def decode_many(
        self, files: Sequence[bytes | bytearray | memoryview], batch: int = 4, *, detail: bool = True, on_device: bool = False
    ) -> list[Any]:
        """Return the image of each `.dlf` file, given as its bytes, in the same order; see `decode`.

        Images of one padded size go through the stages together, up to `batch` at a time, and share their `timings`. The
        headers and checksums of all files are checked before the first is decoded. The size of the batch may change the
        last bits of a stage's floats, and so the last bit of a pixel.

        Raises:
            InvalidArgumentError: `batch` is below 1.
            DLFError: `decode` raises it for one of the files. Nothing is returned; the error's `index` and its message say which
                file it is, counted from 0.
        """
        self.timings = {}
        datas = [bytes(data) if isinstance(data, (bytearray, memoryview)) else data for data in files]
        parsed = [indexed(index, self._parse, data, detail) for index, data in enumerate(datas)]
        items = zip(parsed, datas, strict=True)
        work = partial(self._decode_batch, detail=detail, on_device=on_device)
        return _by_batches(work, items, lambda item: tiles(item[0].height, item[0].width), batch)

    def close(self) -> None:
        """Release the loaded stages; the codec loads them again when it is used again.

        On a GPU, its memory, stream and context are released too, and the codec is of no use afterwards.
        """
        self._stages.clear()
        if isinstance(self.backend, CanClose):
            self.backend.close()

    def __enter__(self) -> "Codec":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load(self, image: Any) -> Any:
        """Return an image's pixels, (H, W, 3) uint8: a NumPy array, or one on the backend's device."""
        with self._timed("image"):
            return self._steps.load(image, self._limits)

    def _encode_batch(self, pixels: Sequence[images.Pixels]) -> list[bytes]:
        """Encode images of one padded size."""
        count, (height, width) = len(pixels), pixels[0].shape[:2]
        self.bundle.check_memory(self.backend.name, "encode", height, width, count, self._memory_limit)
        down, across = tiles(height, width)
        latents = self._run("analysis", {"image": self._steps.pad(pixels)}, count * down * across)
        z = self._checked("analysis", latents, "z", (count, down, across, self._entropy.codebook_dim, TOKENS))
        y = self._checked("analysis", latents, "y", (count, self._entropy.channels, 8 * down, 8 * across))
        coded = self._steps.encode(z, y)
        return [
            self._entropy.write_file(each.shape[1], each.shape[0], tokens, detail, checksum=self._checksum)
            for each, (tokens, detail) in zip(pixels, coded, strict=True)
        ]

    def _parse(self, data: bytes, detail: bool) -> FileInfo:
        """Return a file's header. Raises WrongModelError unless this bundle's model wrote the file."""
        file = parse_file(data, self._limits, preview=not detail)
        if (file.fingerprint, file.token_bits) != (self._entropy.fingerprint, self._entropy.token_bits):
            raise WrongModelError(
                f"it was written with model {file.fingerprint:04x} ({file.token_bits} bits a token), and the bundle "
                f"{self.bundle.path} holds model {self.bundle.fingerprint} ({self._entropy.token_bits} bits a token); "
                "decode it with the bundle that wrote it"
            )
        return file

    def _decode_batch(self, items: Sequence[tuple[FileInfo, bytes]], detail: bool, on_device: bool) -> list[Any]:
        """Decode files of images of one padded size."""
        first = items[0][0]
        down, across = tiles(first.height, first.width)
        self.bundle.check_memory(self.backend.name, "decode", first.height, first.width, len(items), self._memory_limit)
        tokens = [unpack_tokens(data, file) for file, data in items]
        streams = [detail_stream(data, file) for file, data in items] if detail else None
        arrays = self._steps.decode(tokens, streams, down, across)
        for stage in DECODER_STAGES:
            arrays = self._run(stage, arrays, len(items) * down * across)
        shape = (len(items), 3, TILE * down, TILE * across)
        image = self._checked("generator", arrays, "image", shape)
        return self._steps.crop(image, [(file.height, file.width) for file, _ in items], on_device)

    def _run(self, name: str, inputs: Arrays, tiles: int) -> Arrays:
        """Run a stage for a batch of so many tiles."""
        once = self._low_memory or (self.backend.on_cpu and tiles * TILE**2 >= LARGE_BATCH)
        if once:
            self._stages.pop(name, None)  # which would keep its parts
        with self._timed("load"), self._failures(name, "load"):
            stage = self._stages.get(name) or stages.load(self.backend, self.bundle, name, once=once)
        if not once:
            self._stages[name] = stage
        with self._timed(name), self._failures(name, "run"):
            return stage(inputs)

    def _checked(self, stage: str, arrays: Arrays, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return an output of a stage. Raises BundleBrokenError if it is missing or has another shape."""
        found = arrays[name].shape if name in arrays else "nothing"
        if found != shape:
            raise BundleBrokenError(
                f"Bundle {self.bundle.path}: stage {stage} gives {found} as {name}, not {shape}; export the bundle again."
            )
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


def _by_batches(
    work: Callable[[Sequence[T]], list[R]], items: Iterable[T], size: Callable[[T], tuple[int, int]], batch: int
) -> list[R]:
    """Return the results of `work` in the order of the items. It is given batches of items of one size, once they are full."""
    if batch < 1:
        raise InvalidArgumentError(f"batch is {batch}; it must be at least 1.")
    results: dict[int, R] = {}
    waiting: dict[tuple[int, int], dict[int, T]] = {}

    def flush(group: dict[int, T]) -> None:
        with reindexed(list(group)):
            results.update(zip(group, work(list(group.values())), strict=True))

    for index, item in enumerate(items):
        group = waiting.setdefault(size(item), {})
        group[index] = item
        if len(group) == batch:
            flush(waiting.pop(size(item)))
    for group in waiting.values():
        flush(group)
    return [results[index] for index in range(len(results))]
