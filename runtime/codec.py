"""The codec: image -> `.dlf` bytes -> image, with the neural stages of one bundle on one backend.

Between the stages stands the entropy core (`dlf.runtime.core`), which alone decides what the coder sees.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from dlf.runtime import builtin, images
from dlf.runtime.backends import Arrays, Backend, Stage, open_backend
from dlf.runtime.bundle import Bundle
from dlf.runtime.core import TOKENS_PER_TILE as TOKENS
from dlf.runtime.core import FileInfo, Limits, detail_stream, parse_file, unpack_tokens, write_file
from dlf.runtime.errors import BackendFailedError, BundleBrokenError, WrongModelError

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
        with self._timed("image"):
            pixels = images.load(image, self._limits)
            batch = images.pad_to_tiles(pixels)
        height, width, _ = pixels.shape
        down, across = (side // images.TILE for side in batch.shape[2:])
        latents = self._run("analysis", {"image": batch})
        z = self._checked("analysis", latents, "z", (1, down, across, self._entropy.codebook_dim, TOKENS))
        y = self._checked("analysis", latents, "y", (1, self._entropy.channels, 8 * down, 8 * across))
        with self._timed("vq"):
            tokens = self._entropy.vq_lookup(z.reshape(down * across, -1, TOKENS))
        with self._timed("detail"):
            detail, _ = self._entropy.encode_detail(y[0])
        return write_file(
            width=width,
            height=height,
            fingerprint=self._entropy.fingerprint,
            token_bits=self._entropy.token_bits,
            tokens=tokens,
            detail=detail,
            checksum=self._checksum,
        )

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
        file = parse_file(data, self._limits)
        down, across = (-(-side // images.TILE) for side in (file.height, file.width))
        arrays = self._latents(file, data, down, across)
        for stage in ("synthesis", "adaptor", "generator"):
            arrays = self._run(stage, arrays)
        image = self._checked("generator", arrays, "image", (1, 3, images.TILE * down, images.TILE * across))
        with self._timed("image"):
            return images.crop_to_pixels(image, file.height, file.width)

    def close(self) -> None:
        """Release the loaded stages; they are loaded again should the codec be used again."""
        self._stages.clear()

    def __enter__(self) -> "Codec":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _latents(self, file: FileInfo, data: bytes, down: int, across: int) -> Arrays:
        """The inputs of `synthesis`, from a file of `down` x `across` tiles."""
        if (file.fingerprint, file.token_bits) != (self._entropy.fingerprint, self._entropy.token_bits):
            raise WrongModelError(
                f"it was written with model {file.fingerprint:04x} ({file.token_bits} bits a token), and the bundle "
                f"{self.bundle.path} holds model {self.bundle.fingerprint} ({self._entropy.token_bits} bits a token); "
                "decode it with the bundle that wrote it"
            )
        with self._timed("vq"):
            z_hat = self._entropy.vq_embed(unpack_tokens(data, file))
        with self._timed("detail"):
            y_hat = self._entropy.decode_detail(detail_stream(data, file), 8 * down, 8 * across)
        return {"z_hat": z_hat.reshape(1, down, across, -1, TOKENS), "y_hat": y_hat[None]}

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
