"""What lies between the stages: pictures to batches, latents to tokens and detail streams, and back; here, on the CPU.

A backend that keeps its arrays elsewhere brings steps of its own (`gpu_steps`). They give the same files: what the coder sees
is defined in integers, whoever computes it.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dlf.runtime import images
from dlf.runtime.backends import Backend
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BackendFailedError, DLFError
from dlf.runtime.formats import DETAIL_PER_TILE
from dlf.runtime.formats import TOKENS_PER_TILE as TOKENS
from dlf.runtime.images import Pixels
from dlf.runtime.libdlf import EntropyModel

# What times a named part of the work.
Timed: TypeAlias = Callable[[str], AbstractContextManager[None]]


class Steps(Protocol):
    """Works on batches of n images of one padded size, h by w tiles. Arrays are what the backend's stages take and give."""

    def load(self, image: Any) -> Any:
        """What `pad` takes as an image, if it is one that only this backend knows, an array on its device; else None."""
        ...

    def pad(self, pixels: Sequence[Any]) -> Any:
        """n arrays (H, W, 3) uint8 -> the batch (n, 3, 256h, 256w) float32 in -1..1."""
        ...

    def encode(self, z: Any, y: Any) -> list[tuple[NDArray[np.uint16], bytes]]:
        """z (n, h, w, dim, 32) and y (n, C, 8h, 8w) -> of each image its tokens (tiles, 32) and its detail stream.

        Raises BackendFailedError if they are not finite.
        """
        ...

    def decode(self, tokens: Sequence[NDArray[np.uint16]], details: Sequence[bytes], down: int, across: int) -> dict[str, Any]:
        """The inverse: z_hat and y_hat.

        Raises TruncatedError, TrailingBytesError, StreamCorruptError, with the image's `index` in the batch.
        """
        ...

    def crop(self, image: Any, sizes: Sequence[tuple[int, int]], on_device: bool) -> list[Any]:
        """The batch (n, 3, 256h, 256w), and each image's height and width -> n arrays (height, width, 3) uint8.

        They are NumPy's, or stay where they are. Raises BackendFailedError if the batch is not finite.
        """
        ...


@runtime_checkable
class HasSteps(Protocol):
    """A backend with steps of its own."""

    def steps(self, bundle: Bundle, timed: Timed) -> Steps:
        """Its steps for the entropy model of a bundle."""
        ...


def steps_of(backend: Backend, bundle: Bundle, timed: Timed) -> Steps:
    """The steps that go with a backend."""
    return backend.steps(bundle, timed) if isinstance(backend, HasSteps) else HostSteps(bundle.entropy, timed)


class HostSteps:
    """The steps on the CPU, on NumPy arrays; see `Steps`."""

    def __init__(self, entropy: EntropyModel, timed: Timed) -> None:
        self._entropy = entropy
        self._timed = timed

    def load(self, image: Any) -> None:
        """No image that others do not know."""

    def pad(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """See `Steps.pad`."""
        with self._timed("image"):
            return _joined([images.pad_to_tiles(each) for each in pixels])

    def encode(self, z: NDArray[np.float32], y: NDArray[np.float32]) -> list[tuple[NDArray[np.uint16], bytes]]:
        """See `Steps.encode`."""
        require_finite("analysis", z=bool(np.isfinite(z).all()), y=bool(np.isfinite(y).all()))
        with self._timed("vq"):
            tokens = self._entropy.vq_lookup(z.reshape(-1, z.shape[-2], TOKENS)).reshape(len(z), -1, TOKENS)
        with self._timed("detail"):
            return [(found, self._entropy.encode_detail(each)[0]) for found, each in zip(tokens, y, strict=True)]

    def decode(
        self, tokens: Sequence[NDArray[np.uint16]], details: Sequence[bytes], down: int, across: int
    ) -> dict[str, NDArray[np.float32]]:
        """See `Steps.decode`."""
        with self._timed("vq"):
            z_hat = [indexed(at, self._entropy.vq_embed, each) for at, each in enumerate(tokens)]
        with self._timed("detail"):
            decode_detail = self._entropy.decode_detail
            y_hat = [
                indexed(at, decode_detail, each, DETAIL_PER_TILE * down, DETAIL_PER_TILE * across)[None]
                for at, each in enumerate(details)
            ]
        return {"z_hat": _joined([each.reshape(1, down, across, -1, TOKENS) for each in z_hat]), "y_hat": _joined(y_hat)}

    def crop(self, image: NDArray[np.float32], sizes: Sequence[tuple[int, int]], on_device: bool) -> list[Pixels]:
        """See `Steps.crop`."""
        require_finite("generator", image=bool(np.isfinite(image).all()))
        with self._timed("image"):
            return [images.crop_to_pixels(image[at : at + 1], *size) for at, size in enumerate(sizes)]


def require_finite(stage: str, **finite: bool) -> None:
    """Refuse a stage's outputs, by their names, that have an infinite value or one that is not a number."""
    for name, is_finite in finite.items():
        if not is_finite:
            raise BackendFailedError(f"Stage {stage} gave values that are not finite as {name}.")


def indexed(index: int, work: Callable[..., Any], *arguments: Any) -> Any:
    """The work on one of many items; a refusal carries its index."""
    try:
        return work(*arguments)
    except DLFError as error:
        error.index = index
        raise


def _joined(batches: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Batches as one."""
    return batches[0] if len(batches) == 1 else np.concatenate(batches)
