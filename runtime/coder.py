"""One model on one backend: its stages, loaded when they are needed, and the steps of the codec around them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlf.runtime import images, stages
from dlf.runtime.backends import Arrays, Backend, Stage
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BackendFailedError, BundleBrokenError, indexed
from dlf.runtime.formats import DECODER_STAGES, LARGE_BATCH, TILE, tiles
from dlf.runtime.formats import TOKENS_PER_TILE as TOKENS
from dlf.runtime.libdlf import Direction, FileInfo
from dlf.runtime.steps import Timed, steps_of


class Coder:
    """Encodes and decodes batches of images of one padded size, with one bundle on one backend.

    Args:
        bundle: the open bundle.
        backend: the open backend, which several coders may share.
        timed: measures each step.
        memory_limit: bytes of the whole process at its peak, see `Bundle.check_memory`.
        low_memory: release each stage after it has run.

    Attributes:
        bundle: the bundle.
        steps: what is computed between the stages.
        stages: those that are loaded, by name.
    """

    def __init__(self, bundle: Bundle, backend: Backend, timed: Timed, *, memory_limit: int | None, low_memory: bool) -> None:
        self.bundle = bundle
        self.steps = steps_of(backend, bundle, timed)
        self.stages: dict[str, Stage] = {}
        self._backend = backend
        self._timed = timed
        self._memory_limit = memory_limit
        self._low_memory = low_memory

    def reads(self, file: FileInfo) -> bool:
        """Whether a file with this model's fingerprint has the form of the model's files."""
        entropy = self.bundle.entropy
        return (file.token_bits, file.coded_tokens) == (entropy.token_bits, entropy.coded_tokens)

    def encode(self, pixels: Sequence[images.Pixels], checksum: bool) -> list[bytes]:
        """The `.dlf` files of images, (H, W, 3) uint8 each, of NumPy or on the backend's device.

        Raises OutOfMemoryError, BundleBrokenError, BackendFailedError.
        """
        count, (height, width) = len(pixels), pixels[0].shape[:2]
        once = self._releases("encode", height, width, count)
        down, across = tiles(height, width)
        latents = self._run("analysis", {"image": self.steps.pad(pixels)}, once)
        z = self._checked("analysis", latents, "z", (count, down, across, self.bundle.entropy.codebook_dim, TOKENS))
        y = self._checked("analysis", latents, "y", (count, self.bundle.entropy.channels, 8 * down, 8 * across))
        coded = self.steps.encode(z, y)
        return [
            self.bundle.entropy.write_file(each.shape[1], each.shape[0], tokens, detail, checksum=checksum)
            for each, (tokens, detail) in zip(pixels, coded, strict=True)
        ]

    def decode(self, items: Sequence[tuple[FileInfo, bytes]], detail: bool, on_device: bool) -> list[Any]:
        """The images of files of this model, of each its header and its bytes; see `Codec.decode`."""
        first = items[0][0]
        down, across = tiles(first.height, first.width)
        once = self._releases("decode", first.height, first.width, len(items))
        read = [indexed(index, self.bundle.entropy.read_file, data, file) for index, (file, data) in enumerate(items)]
        streams = [stream for _, stream in read] if detail else None
        arrays = self.steps.decode([tokens for tokens, _ in read], streams, down, across)
        for stage in DECODER_STAGES:
            arrays = self._run(stage, arrays, once)
        shape = (len(items), 3, TILE * down, TILE * across)
        image = self._checked("generator", arrays, "image", shape)
        return self.steps.crop(image, [(file.height, file.width) for file, _ in items], on_device)

    def _releases(self, direction: Direction, height: int, width: int, images: int) -> bool:
        """Whether stages are released once they have run for so many images. Raises OutOfMemoryError."""
        needed = self.bundle.check_memory(
            self._backend.name, direction, height, width, images, self._memory_limit, low_memory=self._low_memory
        )
        large = self._backend.on_cpu and images * prod(tiles(height, width)) * TILE**2 >= LARGE_BATCH
        return needed or large

    def _run(self, name: str, inputs: Arrays, once: bool) -> Arrays:
        """Run a stage, which is then kept, or released if it is for one run."""
        if once:
            self.stages.clear()  # also those that other images have left
        with self._timed("load"), self._failures(name, "load"):
            once_on = {each: array.shape for each, array in inputs.items()} if once else None
            stage = self.stages.get(name) or stages.load(self._backend, self.bundle, name, once_on=once_on)
        if not once:
            self.stages[name] = stage
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
                f"{self._backend.name} could not {action} stage {stage} of {self.bundle.path} ({type(error).__name__}: {error})."
            ) from error
