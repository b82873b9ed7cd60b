"""The steps of the codec that are not neural stages: load, pad and crop images, look tokens up, code the detail latent.

`HostSteps` computes them on the CPU. A backend whose arrays are on another device computes them there (`dlf.runtime.gpu.steps`).
Both write the same bytes, because the integers that are coded do not depend on where they are computed.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dlf.runtime import images
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BackendFailedError, indexed
from dlf.runtime.formats import DETAIL_PER_TILE
from dlf.runtime.formats import TOKENS_PER_TILE as TOKENS
from dlf.runtime.images import Pixels
from dlf.runtime.libdlf import EntropyModel, Limits

if TYPE_CHECKING:
    from dlf.runtime.backends import Backend

# Called with a step's name: measures the seconds that the `with` block takes.
Timed: TypeAlias = Callable[[str], AbstractContextManager[None]]


class Steps(Protocol):
    """Process batches of n images of one padded size, h by w tiles. Arrays are of the type that the backend's stages use."""

    def load(self, image: Any, limits: Limits) -> Any:
        """Return an image as an array (H, W, 3) uint8: of NumPy, or on the backend's device if the image is there already.

        Raises ImageError and SizeLimitError, see `images.load`.
        """
        ...

    def pad(self, pixels: Sequence[Any]) -> Any:
        """Return n arrays (H, W, 3) uint8 as one batch (n, 3, 256h, 256w) float32 in -1..1."""
        ...

    def encode(self, z: Any, y: Any) -> list[tuple[NDArray[np.uint16], bytes]]:
        """Return each image's tokens (tiles, 32) and detail stream, from z (n, h, w, dim, 32) and y (n, C, 8h, 8w).

        Raises BackendFailedError if z or y has values that are not finite.
        """
        ...

    def decode(
        self, tokens: Sequence[NDArray[np.uint16]], details: Sequence[bytes] | None, down: int, across: int
    ) -> dict[str, Any]:
        """Return z_hat (n, h, w, dim, 32) and y_hat (n, C, 8h, 8w), by name; `down` is h and `across` is w.

        Without `details`, for a preview, y_hat is 0.

        Raises TruncatedError, TrailingBytesError, StreamCorruptError; the error's `index` is the image's position in the batch.
        """
        ...

    def crop(self, image: Any, sizes: Sequence[tuple[int, int]], on_device: bool) -> list[Any]:
        """Cut n images (height, width, 3) uint8 of the given sizes out of a batch (n, 3, 256h, 256w).

        They are NumPy arrays or, with `on_device`, arrays on the backend's device. Raises BackendFailedError if the batch has
        values that are not finite.
        """
        ...


@runtime_checkable
class HasSteps(Protocol):
    """A backend that computes the steps on its own device."""

    def steps(self, bundle: Bundle, timed: Timed) -> Steps:
        """Return the backend's steps with the bundle's entropy model."""
        ...


def steps_of(backend: "Backend", bundle: Bundle, timed: Timed) -> Steps:
    """Return the backend's own steps, or else those on the CPU."""
    return backend.steps(bundle, timed) if isinstance(backend, HasSteps) else HostSteps(bundle.entropy, timed)


class HostSteps:
    """The steps on the CPU, on NumPy arrays; see `Steps`."""

    def __init__(self, entropy: EntropyModel, timed: Timed) -> None:
        self._entropy = entropy
        self._timed = timed

    def load(self, image: Any, limits: Limits) -> Pixels:
        """See `Steps.load`."""
        return images.load(image, limits)

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
            return [(found, self._entropy.encode_detail(each)) for found, each in zip(tokens, y, strict=True)]

    def decode(
        self, tokens: Sequence[NDArray[np.uint16]], details: Sequence[bytes] | None, down: int, across: int
    ) -> dict[str, NDArray[np.float32]]:
        """See `Steps.decode`."""
        with self._timed("vq"):
            z_hat = [indexed(at, self._entropy.vq_embed, each) for at, each in enumerate(tokens)]
        height, width = DETAIL_PER_TILE * down, DETAIL_PER_TILE * across
        if details is None:
            y_hat = [np.zeros((len(tokens), self._entropy.channels, height, width), np.float32)]
        else:
            with self._timed("detail"):
                decode_detail = self._entropy.decode_detail
                y_hat = [indexed(at, decode_detail, each, height, width)[None] for at, each in enumerate(details)]
        return {"z_hat": _joined([each.reshape(1, down, across, -1, TOKENS) for each in z_hat]), "y_hat": _joined(y_hat)}

    def crop(self, image: NDArray[np.float32], sizes: Sequence[tuple[int, int]], on_device: bool) -> list[Pixels]:
        """See `Steps.crop`."""
        require_finite("generator", image=bool(np.isfinite(image).all()))
        with self._timed("image"):
            return [images.crop_to_pixels(image[at : at + 1], *size) for at, size in enumerate(sizes)]


def require_finite(stage: str, **finite: bool) -> None:
    """Raise BackendFailedError for a stage's outputs that are not finite; `finite` tells of each output whether it is."""
    for name, is_finite in finite.items():
        if not is_finite:
            raise BackendFailedError(f"Stage {stage} gave values that are not finite as {name}.")


def _joined(batches: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the batches as one batch."""
    return batches[0] if len(batches) == 1 else np.concatenate(batches)
