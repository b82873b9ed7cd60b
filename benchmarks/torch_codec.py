"""The codec in PyTorch eager: the peer with which the runtime's figures are compared.

It runs the authors' float prior, with the runtime's rANS coder in place of theirs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlf.export.checkpoint import load_checkpoint
from dlf.export.integer_prior import cdf_indexes, entropy_tables
from dlf.runtime.images import crop_to_pixels, load, pad_to_tiles
from dlf.runtime.libdlf import EntropyModel, Limits

Stage: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Coded:
    """An encoded image, in tensors. It includes y_hat, from which the float prior is computed again when it is decoded."""

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
    """Encodes and decodes batches with a checkpoint, in PyTorch on `threads` CPU threads, or as many as it chooses.

    Stages run eagerly, or compiled by `torch.compile` with `compiled`. With `device` "cuda" or "cuda:N" the model is on a GPU;
    the rANS coder always runs on the CPU.

    `timings` holds the seconds of each step of the last call, by the names of `dlf.Codec.timings`.
    """

    def __init__(self, checkpoint: Path, threads: int | None, compiled: bool = False, device: str = "cpu") -> None:
        if threads:
            torch.set_num_threads(threads)
        self.timings: dict[str, float] = {}
        self.model = load_checkpoint(checkpoint)
        self.entropy = EntropyModel(entropy_tables(self.model).to_bytes())
        self._device = torch.device(device)
        self.model.to(self._device)
        build: Callable[[Stage], Stage] = torch.compile if compiled else lambda stage: stage
        self._analysis, self._synthesis = build(self.model.analysis), build(self.model.synthesis)
        self._adaptor, self._generator = build(self.model.adaptor), build(self.model.generator)

    @torch.inference_mode()
    def encode(self, images: Sequence[Path]) -> list[Coded]:
        """Encode image files of one padded size."""
        self.timings = {}
        with self._timed("image"):
            pixels = [load(image, Limits()) for image in images]
            batch = torch.from_numpy(np.concatenate([pad_to_tiles(each) for each in pixels])).to(self._device)
        with self._timed("analysis"):
            z, y = self._analysis(batch)
        with self._timed("vq"):
            tokens = self.model.hybrid_codec.quantize.look_up(z).cpu()
        with self._timed("detail"):
            quantised = self.model.hybrid_codec.quantize_feat.quantise(y)
            symbols = _in_coding_order(quantised.symbols).astype(np.int32)
            indexes = cdf_indexes(_in_coding_order(quantised.scales))
            y_hat = quantised.y_hat.cpu()
            details = [self.entropy.rans_encode(*each) for each in zip(symbols, indexes, strict=True)]
        return [  # clones, so that a file holds one image's part of a tensor, not all of it
            Coded(each.shape[0], each.shape[1], tokens[i : i + 1].clone(), details[i], y_hat[i : i + 1].clone())
            for i, each in enumerate(pixels)
        ]

    @torch.inference_mode()
    def decode(self, coded: Sequence[Coded]) -> list[NDArray[np.uint8]]:
        """Decode images of one padded size to (height, width, 3)."""
        self.timings = {}
        with self._timed("vq"):
            z_hat = self.model.hybrid_codec.quantize.embed(torch.cat([each.tokens for each in coded]).to(self._device))
        with self._timed("detail"):
            y_hat = torch.cat([each.y_hat for each in coded]).to(self._device)
            quantised = self.model.hybrid_codec.quantize_feat.quantise(y_hat)
            indexes = cdf_indexes(_in_coding_order(quantised.scales))
            for each, own in zip(coded, indexes, strict=True):
                self.entropy.rans_decode(each.detail, own)
        with self._timed("synthesis"):
            semantic, detail = self._synthesis(z_hat, quantised.y_hat)
        with self._timed("adaptor"):
            latent = self._adaptor(semantic, detail)
        with self._timed("generator"):
            image = self._generator(latent)
        with self._timed("image"):
            decoded = np.split(image.cpu().numpy(), len(coded))
            return [crop_to_pixels(one, each.height, each.width) for one, each in zip(decoded, coded, strict=True)]

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # kernels are only queued
        self.timings[step] = perf_counter() - start


def _in_coding_order(steps: Sequence[Tensor]) -> NDArray[np.float32]:
    """Return the values (n, symbols) in coding order, of the steps' values (n, channels/4, height, width)."""
    return torch.cat([step.flatten(1) for step in steps], 1).cpu().numpy()
