"""The interactive transform (IT): joint attention of the semantic tokens and the detail map of a tile."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlf.export.model.attention import TransformerBlock
from dlf.export.model.config import GRID
from dlf.export.model.convolution import ConvNeXtBlock
from dlf.export.model.partition import partition, unpartition
from dlf.export.model.swin import SwinRun
from dlf.runtime.formats import TOKENS_PER_TILE

TILE_TOKENS = 1 + GRID * GRID + TOKENS_PER_TILE  # class, patches, latents


class InteractiveTransform(nn.Module):
    """Joint attention over the 289 semantic tokens and 256 detail positions of each tile, at the detail width."""

    def __init__(self, vit_width: int, detail_width: int, depth: int) -> None:
        super().__init__()
        self.titok_pos_emb = nn.Parameter(0.02 * torch.randn(TILE_TOKENS, 1, vit_width))
        self.feat_pos_emb = nn.Parameter(0.02 * torch.randn(GRID * GRID, 1, detail_width))
        self.titok_compress_proj = nn.Linear(vit_width, detail_width)
        self.attn = nn.Sequential(*(TransformerBlock(detail_width) for _ in range(depth)))
        self.titok_decompress_proj = nn.Sequential(nn.Linear(detail_width, 2 * detail_width), nn.LayerNorm(2 * detail_width))
        self.zero_add = nn.Linear(2 * detail_width, vit_width)
        self.feat_add = nn.Sequential(nn.LayerNorm(detail_width), nn.Linear(detail_width, detail_width))

    def forward(self, detail: Tensor, semantic: Tensor) -> tuple[Tensor, Tensor]:
        """Update both branches.

        Args:
            detail: (n, 16h, 16w, detail_width).
            semantic: (n*h*w, 289, vit_width).
        """
        _, height, width, _ = detail.shape
        s = self.titok_compress_proj(semantic + self.titok_pos_emb[:, 0])
        d = partition(detail) + self.feat_pos_emb[:, 0]
        q = self.attn(torch.cat([s, d], 1))
        q_s, q_d = q[:, :TILE_TOKENS], q[:, TILE_TOKENS:]
        detail = detail + unpartition(self.feat_add(q_d), height, width)
        semantic = semantic + self.zero_add(F.silu(self.titok_decompress_proj(q_s)))
        return detail, semantic


class DetailBlocks(nn.Sequential):
    """The blocks that process the detail map after each interactive transform: two Swin and two ConvNeXt blocks."""

    def __init__(self, width: int) -> None:
        super().__init__(SwinRun(width, 2, first=1), ConvNeXtBlock(width), ConvNeXtBlock(width))
