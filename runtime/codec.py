"""The codec: encodes images to `.dlf` bytes and decodes them, singly or in batches.

It has one model, or several of different rates, each of which is a `dlf.runtime.coder`.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, overload

from dlf.runtime import bundles, images
from dlf.runtime.backends import CanClose
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.bundles.folder import Model
from dlf.runtime.coder import Coder
from dlf.runtime.errors import InvalidArgumentError, WrongModelError, indexed, reindexed
from dlf.runtime.formats import tiles
from dlf.runtime.gpu.arrays import SupportsDLPack
from dlf.runtime.libdlf import FileInfo, Limits, Metadata, parse_file, replace_metadata
from dlf.runtime.rate import Rate

if TYPE_CHECKING:
    from dlf.runtime.processes import Processes

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)


class Codec:
    """Encodes images to `.dlf` files and decodes them, on one backend.

    Stages are loaded when they are first needed, so that a codec that only encodes never loads the decoder. Not for use
    by several threads at a time.

    Args:
        bundle: the bundle's folder; by default the built-in model. Or a folder of bundles, of one model or of several. Of the
            precisions of a model the one is used that the backend runs fastest; of several models, a file is decoded by the one
            that wrote it, and an image encoded by the one of the highest rate, unless `encode` is asked for another.
        backend: "openvino", "onnxruntime", "tensorrt" or "onnxruntime-tensorrt"; by default the one that runs one of the
            bundles fastest on this machine.
        threads: CPU threads; by default as many as the backend chooses.
        limits: the largest image that is encoded or decoded.
        memory_limit: bytes that this process may hold at its peak, by what the bundle says of its stages on the backend. Where
            images do not fit otherwise, stages are released as with `low_memory`; what would take more even so is refused
            before any stage runs. By default what the machine, and the control groups of this process, leave it.
        checksum: whether encoded files carry a checksum (2 bytes); without it some damage decodes to a wrong picture.
        low_memory: release each stage after it has run, and load it again for the next image.
        stream: on a GPU, the handle of the CUDA stream on which the caller writes images and reads results.
        device: "cpu", "cuda", or "cuda:1" for the second GPU. By default a GPU if `dlf doctor` has passed on it with this bundle,
            or if the backend runs only there; otherwise the CPU.

    Attributes:
        bundle: the open bundle, with the model's name, fingerprint, precision and licence; of several models, that of the
            highest rate.
        backend: the backend in use, with its name, device, precision and library versions.
        timings: seconds that each step of the last call took; "load" is the loading of stages.

    Raises:
        BundleForeignError, BundleBrokenError: the bundle cannot be used, see `bundles.open_all`.
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
        self._given = bundle
        self._processes: Processes | None = None
        self._folder = bundles.models(bundle)
        default = self._folder.models[-1]
        selected = bundles.select(default.open(), backend, threads, stream, device)
        self.bundle, self.backend = selected.bundle, selected.backend
        self.timings: dict[str, float] = {}
        self._limits = limits or Limits()
        if memory_limit is not None and not (isinstance(memory_limit, Integral) and memory_limit >= 1):
            raise InvalidArgumentError(f"memory_limit is {memory_limit!r}; it must be a whole number of bytes, at least 1.")
        self._memory_limit = memory_limit
        self._checksum = checksum
        self._low_memory = low_memory
        self._precisions = selected.precisions
        self._why_backend = selected.why_backend
        self._coders = {default.fingerprint: self._coder_with(selected.bundle, selected.why_bundle)}
        self._steps = self._coders[default.fingerprint].steps

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Codec holds an open model and cannot be pickled or copied; open one in each process.")

    @property
    def qualities(self) -> tuple[str, ...]:
        """The fingerprint of the model of each quality that `encode` may be asked for, the lowest rate first.

        Raises BundleForeignError: of several models, the rate of one is not known.
        """
        return tuple(model.fingerprint for model in self._folder.by_rate())

    def encode(
        self,
        image: images.ImageLike | SupportsDLPack,
        *,
        quality: int | None = None,
        target_bytes: int | None = None,
        target_bpp: float | None = None,
        metadata: Metadata | None = None,
    ) -> bytes:
        """Return the image as the bytes of a `.dlf` file.

        `image` is an (H, W, 3) or (H, W) uint8 array, a Pillow image, a path or a binary file; see `images.load`. On a
        GPU it may also be an (H, W, 3) uint8 array there, of torch, CuPy or another library.

        Where the codec has several models, at most one of the other arguments chooses: `quality` is the number of a model,
        from 0, the lowest rate, to `len(qualities) - 1`, which is the default. With `target_bytes`, or `target_bpp` in bits per
        pixel, all models encode the image, and the largest file is returned that is not above the target; if all are, the
        smallest, with a warning in the log.

        `metadata` are kept in the file, as they are: EXIF and XMP of an image, if they are wanted, are those that
        `dlf.metadata_of(image)` gives. They count for a target.

        Raises:
            InvalidArgumentError: one of these is out of its range, or several are given.
            BundleForeignError: of several models, the rate of one is not known.
            ImageError, SizeLimitError: the image cannot be used, see `images.load`; SizeLimitError also of metadata.
            OutOfMemoryError: it would take more memory than `memory_limit`.
            BundleBrokenError, BackendFailedError: the analysis stage cannot be loaded or run.
        """
        self.timings = {}
        rate = self._rate(quality, target_bytes, target_bpp)
        return self._encode_batch([self._load(image)], rate, metadata)[0]

    def encode_many(
        self,
        images: Iterable[images.ImageLike | SupportsDLPack],
        batch: int = 4,
        *,
        workers: int = 1,
        quality: int | None = None,
        target_bytes: int | None = None,
        target_bpp: float | None = None,
    ) -> list[bytes]:
        """Return the bytes of one `.dlf` file for each image, in the same order; see `encode`.

        Images of one padded size go through the analysis stage together, up to `batch` at a time, and share its `timings`.
        The images may be of any sizes, and are loaded as they are needed: at most `batch` of each padded size are in memory.

        With several `workers` so many processes encode the batches, each with its own copy of the model and its share of the
        threads; this one reads the images. The processes stay for the next call, until `close`. `timings` tells of the reading
        alone. A script that calls this must have `if __name__ == "__main__":`, since the processes import it.

        Raises:
            InvalidArgumentError: `batch` or `workers` is below 1, there are several for a GPU, or the rate is none, see `encode`.
            BackendFailedError: a process has ended.
            DLFError: `encode` raises it for one of the images. Nothing is returned; the error's `index` and its message say
                which image it is, counted from 0.
        """
        self.timings = {}
        rate = self._rate(quality, target_bytes, target_bpp)
        loaded = (indexed(index, self._load, image) for index, image in enumerate(images))
        if workers == 1:
            return _by_batches(partial(self._encode_batch, rate=rate), loaded, _padded_size, batch)
        asked = {"quality": quality, "target_bytes": target_bytes, "target_bpp": target_bpp}
        return _in_order(dict(self._processes_of(workers).encode(_batches(loaded, _padded_size, batch), asked)))

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
        cut off anywhere behind them. No checksum is checked then: damaged tokens give another picture.

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
        return _by_batches(work, items, lambda item: (item[0].fingerprint, *tiles(item[0].height, item[0].width)), batch)

    def close(self) -> None:
        """Release the loaded stages, and end the processes of `encode_many`; they come back when the codec is used again.

        On a GPU, its memory, stream and context are released too, and the codec is of no use afterwards.
        """
        for coder in self._coders.values():
            coder.stages.clear()
        if self._processes:
            self._processes.close()
            self._processes = None
        if isinstance(self.backend, CanClose):
            self.backend.close()

    def __enter__(self) -> "Codec":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _processes_of(self, count: int) -> "Processes":
        """So many processes, each with its share of this codec's threads and memory."""
        if count < 1 or not self.backend.on_cpu:
            raise InvalidArgumentError(f"workers is {count}; it must be at least 1, and 1 on a GPU.")
        from dlf.runtime.processes import Processes  # and with it multiprocessing

        if self._processes and (self._processes.count != count or self._processes.ended):
            self._processes.close()
            self._processes = None
        open_codec = partial(
            Codec,
            self._given,
            self.backend.name,
            max(1, (self.backend.threads or os.cpu_count() or 1) // count),
            limits=self._limits,
            memory_limit=self._memory_limit and max(1, self._memory_limit // count),
            checksum=self._checksum,
            low_memory=self._low_memory,
            device="cpu",
        )
        self._processes = self._processes or Processes(open_codec, count)
        return self._processes

    def _load(self, image: Any) -> Any:
        """Return an image's pixels, (H, W, 3) uint8: a NumPy array, or one on the backend's device."""
        with self._timed("image"):
            return self._steps.load(image, self._limits)

    def _rate(self, quality: int | None, target_bytes: int | None, target_bpp: float | None) -> Rate:
        rate = Rate(quality, target_bytes, target_bpp)
        rate.among(self._folder.by_rate())  # refuses before an image is loaded
        return rate

    def _encode_batch(self, pixels: Sequence[images.Pixels], rate: Rate, metadata: Metadata | None = None) -> list[bytes]:
        """Encode images of one padded size."""
        models = rate.among(self._folder.by_rate())
        files = [self._coder(model).encode(pixels, self._checksum) for model in models]
        if metadata is not None:
            files = [[replace_metadata(file, metadata) for file in of_one] for of_one in files]
        of_each = zip(*files, strict=True)
        return [rate.best(files, *image.shape[:2]) for image, files in zip(pixels, of_each, strict=True)]

    def _parse(self, data: bytes, detail: bool) -> FileInfo:
        """Return a file's header. Raises WrongModelError unless a model here wrote the file."""
        file = parse_file(data, self._limits, preview=not detail)
        model = self._folder.of(f"{file.fingerprint:04x}")
        if model is None or not self._coder(model).reads(file):
            here = (
                f"bundle {self.bundle.path} holds model {self.bundle.fingerprint} ({self.bundle.entropy.token_bits} bits a token)"
            )
            if len(self._folder.models) > 1:
                here = f"folder {self._folder.path} holds models {', '.join(each.fingerprint for each in self._folder.models)}"
            raise WrongModelError(
                f"it was written with model {file.fingerprint:04x} ({file.token_bits} bits a token), and the {here}; "
                "decode it with the bundle that wrote it"
            )
        return file

    def _decode_batch(self, items: Sequence[tuple[FileInfo, bytes]], detail: bool, on_device: bool) -> list[Any]:
        """Decode files of one model, of images of one padded size."""
        model = self._folder.of(f"{items[0][0].fingerprint:04x}")
        assert model is not None
        return self._coder(model).decode(items, detail, on_device)

    def _coder(self, model: Model) -> Coder:
        """The coder of a model, opened when it is first needed."""
        if model.fingerprint not in self._coders:
            self._coders[model.fingerprint] = self._coder_with(*bundles.choose(model.open(), self._precisions))
        return self._coders[model.fingerprint]

    def _coder_with(self, bundle: Bundle, why: str) -> Coder:
        versions = ", ".join(f"{library} {version}" for library, version in self.backend.versions.items())
        _log.info(
            "Model %s (%s, licence: %s) in %s (%s) on %s (%s, %s, %s).",
            bundle.name,
            bundle.fingerprint,
            bundle.license or "unknown",
            bundle.precision,
            why,
            self.backend.name,
            self._why_backend,
            self.backend.device,
            versions,
        )
        return Coder(bundle, self.backend, self._timed, memory_limit=self._memory_limit, low_memory=self._low_memory)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = perf_counter()
        yield
        seconds = perf_counter() - start
        self.timings[step] = self.timings.get(step, 0) + seconds
        _log.debug("%s: %.3f s", step, seconds)


def _by_batches(
    work: Callable[[Sequence[T]], list[R]], items: Iterable[T], size: Callable[[T], tuple[int, ...]], batch: int
) -> list[R]:
    """Return the results of `work`, which is given batches of items of one size, in the order of the items."""
    results: dict[int, R] = {}
    for numbers, group in _batches(items, size, batch):
        with reindexed(numbers):
            results.update(zip(numbers, work(group), strict=True))
    return _in_order(results)


def _batches(items: Iterable[T], size: Callable[[T], tuple[int, ...]], batch: int) -> Iterator[tuple[list[int], list[T]]]:
    """Yield batches of items of one size, once they are full, with the items' numbers."""
    if batch < 1:
        raise InvalidArgumentError(f"batch is {batch}; it must be at least 1.")
    waiting: dict[tuple[int, ...], dict[int, T]] = {}
    for index, item in enumerate(items):
        group = waiting.setdefault(size(item), {})
        group[index] = item
        if len(group) == batch:
            del waiting[size(item)]
            yield list(group), list(group.values())
    for group in waiting.values():
        yield list(group), list(group.values())


def _padded_size(pixels: Any) -> tuple[int, int]:
    return tiles(*pixels.shape[:2])


def _in_order(results: dict[int, R]) -> list[R]:
    return [results[index] for index in range(len(results))]
