"""VQ of the semantic latent: the nearest codebook entry by cosine."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class VectorQuantiser(nn.Module):
    """A codebook whose entries are compared and used as unit vectors."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, dim)

    @property
    def unit_vectors(self) -> Tensor:
        """The codebook as the codec uses it, (size, dim)."""
        return F.normalize(self.embedding.weight, dim=-1)

    def look_up(self, z: Tensor) -> Tensor:
        """Indices (..., 32), int64, of z (..., dim, 32)."""
        unit = F.normalize(z.transpose(-1, -2), dim=-1)
        return (unit @ self.unit_vectors.T).argmax(-1)

    def embed(self, indices: Tensor) -> Tensor:
        """The unit vectors (..., dim, 32) of indices (..., 32)."""
        return F.embedding(indices, self.unit_vectors).transpose(-1, -2)


class Codebook(nn.Module):
    """The VQGAN's codebook, (size, dim); the latent adaptor mixes its entries."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, dim)

    def forward(self, logits: Tensor) -> Tensor:
        """The softmax-weighted mixture, (n, dim, height, width), of logits (n, size, height, width)."""
        return torch.einsum("nkhw,kd->ndhw", logits.softmax(1), self.embedding.weight)
