"""The codec in PyTorch eager: the peer that every figure of the runtime stands beside.

It runs the authors' float prior and, kindly, the runtime's own rANS coder in place of theirs.
"""

from dataclasses import dataclass
from pathlib import Path

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


class TorchCodec:
    """Encodes and decodes with a checkpoint, in PyTorch eager on `threads` CPU threads."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = load_checkpoint(checkpoint)
        self.entropy = EntropyModel(entropy_tables(self.model).to_bytes())

    @torch.inference_mode()
    def encode(self, image: Path) -> Coded:
        """Encode an image file."""
        pixels = load(image, Limits())
        z, y = self.model.analysis(torch.from_numpy(pad_to_tiles(pixels)))
        return self.code(z, y, *pixels.shape[:2])

    def code(self, z: Tensor, y: Tensor, height: int, width: int) -> Coded:
        """Quantise and code the latents of an image."""
        tokens = self.model.hybrid_codec.quantize.look_up(z)
        quantised = self.model.hybrid_codec.quantize_feat.quantise(y)
        symbols = np.concatenate([s.numpy().ravel() for s in quantised.symbols]).astype(np.int32)
        return Coded(height, width, tokens, self.entropy.rans_encode(symbols, _indexes(quantised)), quantised.y_hat)

    @torch.inference_mode()
    def decode(self, coded: Coded) -> NDArray[np.uint8]:
        """Decode to (height, width, 3)."""
        z_hat = self.model.hybrid_codec.quantize.embed(coded.tokens)
        quantised = self.model.hybrid_codec.quantize_feat.quantise(coded.y_hat)
        self.entropy.rans_decode(coded.detail, _indexes(quantised))
        image = self.model.generator(self.model.adaptor(*self.model.synthesis(z_hat, quantised.y_hat)))
        return crop_to_pixels(image.numpy(), coded.height, coded.width)


def _indexes(quantised: Quantised) -> NDArray[np.int16]:
    return cdf_indexes(np.concatenate([s.numpy().ravel() for s in quantised.scales]))
