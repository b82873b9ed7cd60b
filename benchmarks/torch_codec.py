"""The codec in PyTorch eager: the peer that every figure of the runtime stands beside.

It runs the authors' float prior and, kindly, the runtime's own rANS coder in place of theirs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlf.export.checkpoint import load_checkpoint
from dlf.export.integer_prior import cdf_indexes, entropy_tables
from dlf.export.model.scalar_quantiser import Quantised
from dlf.runtime.core import EntropyModel, Limits
from dlf.runtime.images import crop_to_pixels, load, pad_to_tiles


@dataclass(frozen=True)
class Coded:
    """An encoded image, still in tensors. The float prior cannot decode without knowing y_hat: it is replayed on it."""

    height: int
    width: int
    tokens: Tensor
    detail: bytes
    y_hat: Tensor

    def save(self, path: Path) -> None:
        """Write to a file, for a process that decodes."""
        torch.save(asdict(self), path)

    @staticmethod
    def load(path: Path) -> "Coded":
        """Read what `save` wrote."""
        return Coded(**torch.load(path, weights_only=True))


class TorchCodec:
    """Encodes and decodes with a checkpoint, in PyTorch eager on `threads` CPU threads, or as many as it chooses.

    `timings` holds the seconds of each step of the last call, by the names of `dlf.Codec.timings`.
    """

    def __init__(self, checkpoint: Path, threads: int | None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.timings: dict[str, float] = {}
        self.model = load_checkpoint(checkpoint)
        self.entropy = EntropyModel(entropy_tables(self.model).to_bytes())

    @torch.inference_mode()
    def encode(self, image: Path) -> Coded:
        """Encode an image file."""
        self.timings = {}
        with self._timed("image"):
            pixels = load(image, Limits())
            batch = torch.from_numpy(pad_to_tiles(pixels))
        with self._timed("analysis"):
            z, y = self.model.analysis(batch)
        with self._timed("vq"):
            tokens = self.model.hybrid_codec.quantize.look_up(z)
        with self._timed("detail"):
            quantised = self.model.hybrid_codec.quantize_feat.quantise(y)
            symbols = np.concatenate([s.numpy().ravel() for s in quantised.symbols]).astype(np.int32)
            detail = self.entropy.rans_encode(symbols, _indexes(quantised))
        height, width, _ = pixels.shape
        return Coded(height, width, tokens, detail, quantised.y_hat)

    @torch.inference_mode()
    def decode(self, coded: Coded) -> NDArray[np.uint8]:
        """Decode to (height, width, 3)."""
        self.timings = {}
        with self._timed("vq"):
            z_hat = self.model.hybrid_codec.quantize.embed(coded.tokens)
        with self._timed("detail"):
            quantised = self.model.hybrid_codec.quantize_feat.quantise(coded.y_hat)
            self.entropy.rans_decode(coded.detail, _indexes(quantised))
        with self._timed("synthesis"):
            semantic, detail = self.model.synthesis(z_hat, quantised.y_hat)
        with self._timed("adaptor"):
            latent = self.model.adaptor(semantic, detail)
        with self._timed("generator"):
            image = self.model.generator(latent)
        with self._timed("image"):
            return crop_to_pixels(image.numpy(), coded.height, coded.width)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.timings[step] = perf_counter() - start


def _indexes(quantised: Quantised) -> NDArray[np.int16]:
    return cdf_indexes(np.concatenate([s.numpy().ravel() for s in quantised.scales]))
