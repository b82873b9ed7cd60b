"""The codec's steps other than the neural stages, on a GPU, by the kernels of `dlf.kernels`; the rANS coder stays on the CPU.

Encoding puts everything on the stream and then waits once, for all symbols and their CDF indexes. Decoding waits four times:
the coder needs each step's CDF indexes, which depend on the symbols of the step before. Those of step 0 depend only on the map's
size, so that it waits for steps 1, 2 and 3, and at the end for the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlf.kernels import launches
from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime.errors import ImageError, InvalidArgumentError, indexed
from dlf.runtime.formats import TILE
from dlf.runtime.formats import TOKENS_PER_TILE as TOKENS
from dlf.runtime.gpu.arrays import DeviceArray, is_on_device
from dlf.runtime.images import check_size
from dlf.runtime.libdlf import EntropyModel, Limits
from dlf.runtime.steps import HostSteps, Timed, require_finite

if TYPE_CHECKING:
    from dlf.runtime.gpu.device import Device

STEPS = 4


class GPUSteps:
    """The steps on a GPU, on its arrays; see `dlf.runtime.steps.Steps`.

    Pictures may also be arrays on the GPU, (H, W, 3) uint8, of any library that has `__cuda_array_interface__` or DLPack.
    """

    def __init__(self, device: "Device", entropy: EntropyModel, tables: EntropyTables, timed: Timed) -> None:
        """`tables` is what `entropy` was read from.

        Raises BackendFailedError: there are no kernels for this GPU, or they are damaged.
        """
        self._device = device
        self._entropy = entropy
        self._timed = timed
        with device:
            # Where the prior cannot run on this GPU, it runs on the CPU, and only pictures and tokens are made here.
            self._width = prior_width(device.capability, entropy.channels)
            self._launch = device.kernels(self._width)
            codebook = device.upload(np.ascontiguousarray(tables.codebook.T))
            self._codebook = launches.Codebook(codebook, *tables.codebook.shape)
            if self._width is not None:
                packed = launches.pack_prior(tables)
                arrays: dict[str, Any] = {name: device.upload(value) for name, value in vars(packed).items() if name != "d"}
                self._weights = launches.PriorWeights(packed.d, **arrays)
                self._tables = {
                    "index_table": device.upload(tables.indexes),
                    "mean_table": device.upload(tables.means),
                    "q": device.upload(tables.q),
                }
            device.read()  # the uploads are done, and their host memory is free again
        self._host = HostSteps(entropy, timed)

    # ------------------------------------------------------------------------------------------------------ pictures

    def load(self, image: Any, limits: Limits) -> DeviceArray | NDArray[np.uint8]:
        """See `Steps.load`."""
        if not is_on_device(image):
            return self._host.load(image, limits)
        with self._device:
            try:
                pixels = self._device.borrow(image, np.uint8)
            except InvalidArgumentError as error:
                raise ImageError(f"image: {error}") from error
        if len(pixels.shape) != 3 or pixels.shape[2] != 3:
            raise ImageError(f"image: an array of shape {pixels.shape} on the GPU; it must be (H, W, 3).")
        check_size(pixels.shape[1], pixels.shape[0], limits)
        return pixels

    def pad(self, pixels: Sequence[DeviceArray | NDArray[np.uint8]]) -> DeviceArray:
        """See `Steps.pad`; pictures may be on the GPU or not."""
        with self._timed("image"), self._device as device:
            height, width = (-(-side // TILE) * TILE for side in pixels[0].shape[:2])
            batch = device.empty((len(pixels), 3, height, width), np.float32)
            for at, each in enumerate(pixels):
                there = each if isinstance(each, DeviceArray) else device.upload(np.ascontiguousarray(each))
                sizes = launches.PictureSizes(there.shape[0], there.shape[1], height, width)
                launches.launch_pad_pixels(self._launch, there, batch[at], sizes)
            return batch

    def crop(self, image: DeviceArray, sizes: Sequence[tuple[int, int]], on_device: bool) -> list[Any]:
        """See `Steps.crop`."""
        _, _, padded_height, padded_width = image.shape
        with self._timed("image"), self._device as device:
            pictures = [device.empty((*size, 3), np.uint8) for size in sizes]
            for at, (picture, (height, width)) in enumerate(zip(pictures, sizes, strict=True)):
                each = launches.PictureSizes(height, width, padded_height, padded_width)
                launches.launch_crop_pixels(self._launch, image[at], picture, each)
            # Also of pictures that stay there: it has to be known whether they are finite.
            infinite, *values = device.read(self._infinite(image), *([] if on_device else pictures))
        require_finite("generator", image=not infinite.any())
        return pictures if on_device else values

    def _infinite(self, *arrays: DeviceArray) -> DeviceArray:
        """Return int32 (arrays, 4), whose row is not 0 if that array, float32 (images, ...), has a value that is not finite.

        A flag is one number; the other three of its row keep it at a multiple of 16 bytes, as the kernels require.
        """
        flags = self._device.empty((len(arrays), 4), np.int32)
        self._device.zero(flags)
        for at, array in enumerate(arrays):
            count = array.nbytes // 4 // len(array)
            launches.launch_check_finite(self._launch, array, flags[at], len(array), count)
        return flags

    # ------------------------------------------------------------------------------------------------------- latents

    def encode(self, z: DeviceArray, y: DeviceArray) -> list[tuple[NDArray[np.uint16], bytes]]:
        """See `Steps.encode`."""
        with self._timed("detail"), self._device as device:
            tiles = z.nbytes // 4 // (self._entropy.codebook_dim * TOKENS)
            tokens = device.empty((tiles, TOKENS), np.uint16)
            launches.launch_vq_lookup(self._launch, self._codebook, z, tokens, tiles)
            infinite = self._infinite(z, y)
            if self._width is None:
                found, is_infinite, latent = device.read(tokens, infinite, y)
                require_finite("analysis", z=not is_infinite[0].any(), y=not is_infinite[1].any())
                return [
                    (found.reshape(len(y), -1, TOKENS)[at], self._entropy.encode_detail(each)) for at, each in enumerate(latent)
                ]
            maps = self._maps(len(y), *y.shape[2:])
            device.replay("encode", y.shape, [*maps.arrays, y], partial(self._encode, maps, y))
            found, is_infinite, symbols, coded = device.read(tokens, infinite, maps.of.symbols, maps.of.coded)
            require_finite("analysis", z=not is_infinite[0].any(), y=not is_infinite[1].any())
            streams = [self._entropy.rans_encode(symbols[:, at].ravel(), coded[:, at].ravel()) for at in range(len(y))]
            return list(zip(found.reshape(len(y), -1, TOKENS), streams, strict=True))

    def decode(
        self, tokens: Sequence[NDArray[np.uint16]], details: Sequence[bytes] | None, down: int, across: int
    ) -> dict[str, DeviceArray]:
        """See `Steps.decode`."""
        if self._width is None or details is None:
            arrays = self._host.decode(tokens, details, down, across)
            with self._device as device:
                return {name: device.upload(values) for name, values in arrays.items()}
        with self._timed("detail"), self._device as device:
            images = len(tokens)
            z_hat = np.stack([indexed(at, self._entropy.vq_embed, each) for at, each in enumerate(tokens)])
            decoders = [indexed(at, self._entropy.rans_decoder, each) for at, each in enumerate(details)]
            maps = self._maps(images, 8 * down, 8 * across)
            y_hat = device.empty((images, self._entropy.channels, 8 * down, 8 * across), np.float32)
            arrays_of_step = [*maps.arrays, y_hat]
            coded = self._first_coded(images, 8 * down, 8 * across)
            for step in range(STEPS):
                symbols = np.stack(
                    [indexed(at, decoder.get, coded[at].ravel()) for at, decoder in enumerate(decoders)], dtype=np.int32
                )
                device.write(maps.of.symbols[step], symbols)
                device.replay(f"decode {step}", maps.shape, arrays_of_step, partial(self._decode_step, maps, y_hat, step))
                if step + 1 < STEPS:
                    (coded,) = device.read(maps.of.coded[step + 1])
            for at, decoder in enumerate(decoders):
                indexed(at, decoder.finish)
            return {"z_hat": device.upload(z_hat.reshape(images, down, across, -1, TOKENS)), "y_hat": y_hat}

    def _encode(self, maps: "_Maps", y: DeviceArray) -> None:
        """Put all four steps of quantisation on the stream."""
        sizes = maps.sizes
        self._device.zero(maps.buffers.r)
        launches.launch_first_params(self._launch, maps.of, maps.buffers, sizes)
        for step in range(STEPS):
            if step:
                launches.launch_entropy_params(self._launch, self._weights, maps.buffers, sizes, step)
            launches.launch_quantise(self._launch, maps.of, maps.buffers, y, sizes, step)

    def _decode_step(self, maps: "_Maps", y_hat: DeviceArray, step: int) -> None:
        """Put on the stream what follows a step's symbols: r and y_hat, and the next step's CDF indexes."""
        sizes = maps.sizes
        if step == 0:
            self._device.zero(maps.buffers.r)
            launches.launch_first_params(self._launch, maps.of, maps.buffers, sizes)
        launches.launch_update(self._launch, maps.of, maps.buffers, y_hat, sizes, step)
        if step + 1 < STEPS:
            launches.launch_entropy_params(self._launch, self._weights, maps.buffers, sizes, step + 1)
            launches.launch_select(self._launch, maps.of, maps.buffers, sizes, step + 1)

    def _first_coded(self, images: int, height: int, width: int) -> NDArray[np.int16]:
        """Return the CDF indexes that step 0 codes, (images, C/4 * height * width). The core computes them on the CPU."""
        channels = self._entropy.channels
        indexes, _ = self._entropy.prior_step(0, np.empty((channels, height, width), np.int32))
        groups = indexes.reshape(4, channels // 4, height, width)
        coded = np.empty(groups.shape[1:], np.int16)
        for row in (0, 1):
            for col in (0, 1):  # at step 0 a position codes the group of its place in the 2x2 block
                coded[:, row::2, col::2] = groups[2 * row + col, :, row::2, col::2]
        return np.broadcast_to(coded.ravel(), (images, coded.size))

    def _maps(self, images: int, height: int, width: int) -> "_Maps":
        """Return new arrays for the steps on maps of this size."""
        device, channels = self._device, self._entropy.channels
        shape = (images, channels, height, width)
        scratch = (images, height * width, self._weights.d)
        steps = (STEPS, images, channels // 4, height, width)
        return _Maps(
            shape,
            launches.Symbols(**self._tables, symbols=device.empty(steps, np.int32), coded=device.empty(steps, np.int16)),
            launches.Buffers(
                device.empty(shape, np.int32),
                *(device.empty(scratch, np.int16) for _ in range(3)),
                *(device.empty(shape, np.int16) for _ in range(2)),
            ),
        )


@dataclass(frozen=True)
class _Maps:
    """The arrays of the four steps on a batch of maps."""

    shape: tuple[int, int, int, int]  # images, C, height, width
    of: launches.Symbols
    buffers: launches.Buffers

    @property
    def sizes(self) -> launches.MapSizes:
        return launches.MapSizes(*self.shape)

    @property
    def arrays(self) -> list[DeviceArray]:
        return [*vars(self.of).values(), *vars(self.buffers).values()]


def prior_width(capability: tuple[int, int], channels: int) -> int | None:
    """Return the padded width of the prior's kernels on a GPU; None if the prior has to run on the CPU.

    It has to if the latent has too many channels for the kernels, or if Triton has no int8 products for the GPU (before sm_80).
    """
    if capability < (8, 0):
        return None
    try:
        return launches.padded_width(channels)
    except ValueError:
        return None
