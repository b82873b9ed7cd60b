"""The model without one of its parts, to see what the part is worth (docs/model-card.md, "What each part is worth").

Two of the three are models of the released layout, and are exported and used like any other.
"""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor, nn

from dlf.export.checkpoint import GROUPS_KEY, infer_config
from dlf.export.checkpoint_file import read_tensors
from dlf.export.model import DLF, Config
from dlf.export.model.scalar_quantiser import ScalarQuantiser
from dlf.export.model.vector_quantiser import VectorQuantiser

# At each position of the detail latent so many entries of so large a codebook: 4 times 8 bits for 32x32 pixels, 0.03125 bpp.
PARTS, ENTRIES = 4, 256


class Part(StrEnum):
    """What a model goes without."""

    INTERACTIVE = "interactive"  # transforms, and the blocks of the detail branch that follow each
    DETAIL = "detail"  # branch: the picture is what the tokens tell
    SCALAR = "scalar"  # quantisation and the four-part prior: the detail is quantised by a codebook


class VectorDetail(ScalarQuantiser):
    """The detail latent as unit vectors of a codebook, one for each of `PARTS` groups of channels; without a prior or a file."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.book = VectorQuantiser(ENTRIES, config.detail_channels // PARTS)

    def split(self, y: Tensor) -> Tensor:
        """A latent (n, channels, height, width) as vectors (n, height * width, channels / PARTS, PARTS)."""
        return y.unflatten(1, (PARTS, -1)).flatten(3).permute(0, 3, 2, 1)

    def join(self, vectors: Tensor, like: Tensor) -> Tensor:
        """The inverse of `split`, in the shape of `like`."""
        return vectors.permute(0, 3, 2, 1).reshape(like.shape)


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
    if part is Part.DETAIL:
        silence(model)
    return model


@torch.no_grad()
def silence(model: DLF) -> None:
    """Make the detail latent 0, and its prior certain of it: all scales 0, so that no symbol is coded."""
    quantiser = model.hybrid_codec.quantize_feat
    steps = [module for name, module in quantiser.named_children() if name.startswith("y_spatial_prior")]
    for module in (quantiser.enc_trans_1[-1], quantiser.y_prior_fusion[-1], *steps):
        _zero(module)


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.zero_()


def load(file: Path) -> DLF:
    """The model of a file that training wrote, also one without scalar quantisation, which `load_checkpoint` refuses."""
    tensors, metadata = read_tensors(file)
    vectors = any(name.startswith("hybrid_codec.quantize_feat.book.") for name in tensors)
    model = ablated(infer_config(tensors, int(metadata[GROUPS_KEY])), Part.SCALAR if vectors else None)
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)
