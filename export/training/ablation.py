"""The model without one of its parts, to see what the part is worth (docs/model-card.md, "What each part is worth").

Two of the three are models of the released layout, and are exported and used like any other.
"""

import math
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor, nn

from dlf.export.checkpoint import GROUPS_KEY, infer_config
from dlf.export.checkpoint_file import read_tensors
from dlf.export.model import DLF, Config
from dlf.export.model.scalar_quantiser import ScalarQuantiser

# At each position of the detail latent so many entries of so large a codebook: 4 times 8 bits for 32x32 pixels, 0.03125 bpp.
PARTS, ENTRIES = 4, 256
ROUNDS = 20  # of k-means
BOOK = "hybrid_codec.quantize_feat.book"


class Part(StrEnum):
    """What a model goes without."""

    INTERACTIVE = "interactive"  # transforms, and the blocks of the detail branch that follow each
    DETAIL = "detail"  # branch: the picture is what the tokens tell
    SCALAR = "scalar"  # quantisation and the four-part prior: the detail is quantised by a codebook


class VectorDetail(ScalarQuantiser):
    """The detail latent by the nearest entries of a codebook, one for each of `PARTS` groups of channels, at a fixed rate. It has
    no file; the prior that it inherits is not used."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.book = nn.Parameter(torch.randn(ENTRIES, config.detail_channels // PARTS))

    @torch.no_grad()
    def start(self, y: Tensor) -> None:
        """Begin with the k-means of latents (n, channels, height, width)."""
        vectors = _split(y).flatten(0, -2)
        self.book.copy_(vectors[torch.randperm(len(vectors))[:ENTRIES]])
        for _ in range(ROUNDS):
            nearest = torch.cdist(vectors, self.book).argmin(1)
            counts = torch.bincount(nearest, minlength=ENTRIES)[:, None]
            sums = torch.zeros_like(self.book).index_add_(0, nearest, vectors)
            self.book.copy_(torch.where(counts > 0, sums / counts.clamp(min=1), self.book))

    def nearest(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The quantised latent, with the gradient of the identity; its bits; and a loss that draws entries to latents, and with a
        quarter of the weight latents to entries (VQ-VAE)."""
        vectors = _split(y)
        entries = self.book[torch.cdist(vectors.detach(), self.book.detach()).argmin(-1)]
        loss = (vectors.detach() - entries).square().mean() + 0.25 * (vectors - entries.detach()).square().mean()
        joined = (vectors + (entries - vectors).detach()).permute(0, 3, 4, 1, 2).flatten(1, 2)
        return joined, y.new_tensor(vectors[..., 0].numel() * math.log2(ENTRIES)), loss


def _split(y: Tensor) -> Tensor:
    """A latent (n, channels, height, width) as vectors (n, height, width, PARTS, channels / PARTS)."""
    return y.unflatten(1, (PARTS, -1)).permute(0, 3, 4, 1, 2)


def without(config: Config, part: Part | None) -> Config:
    """The configuration of a model without a part."""
    if part is Part.INTERACTIVE:
        return replace(config, encoder_insertions=(), decoder_insertions=(), insertion_depth=0)
    return config


def ablated(config: Config, part: Part | None) -> DLF:
    """A new model of `without(config, part)`."""
    model = DLF(config)
    if part is Part.SCALAR:
        model.hybrid_codec.quantize_feat = VectorDetail(config)
    return model


def load_into(model: DLF, tensors: dict[str, Tensor], part: Part | None) -> list[str]:
    """Load a whole model's tensors into one without a part; returns the names of those that it lacks."""
    own = model.state_dict()
    if part is Part.INTERACTIVE:
        tensors = {name: tensor for name, tensor in tensors.items() if name in own}
    tensors = {name: tensor for name, tensor in tensors.items() if own[name].shape == tensor.shape}
    missing: list[str] = model.load_state_dict(tensors, strict=False).missing_keys
    if part is Part.DETAIL:
        silence(model)
    return [name for name in missing if name != BOOK]


@torch.no_grad()
def silence(model: DLF) -> None:
    """Make the detail latent 0, and its prior certain of it: all scales 0, so that no symbol is coded."""
    quantiser = model.hybrid_codec.quantize_feat
    steps = [module for name, module in quantiser.named_children() if name.startswith("y_spatial_prior")]
    for module in (quantiser.enc_trans_1[-1], quantiser.y_prior_fusion[-1], *steps):
        for parameter in module.parameters():
            parameter.zero_()


def load(file: Path) -> DLF:
    """The model of a file that training wrote, also one without scalar quantisation, which `load_checkpoint` refuses."""
    tensors, metadata = read_tensors(file)
    config = infer_config(tensors, int(metadata[GROUPS_KEY]))
    model = ablated(config, Part.SCALAR if BOOK in tensors else None)
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)
