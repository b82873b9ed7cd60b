"""Swin blocks: attention in 16x16 windows of a map, every other block shifted by half a window.

Maps are channels-last, (n, height, width, channels), with sides that are multiples of 16.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from dlf.export.model.attention import attention
from dlf.export.model.config import HEAD_WIDTH
from dlf.export.model.partition import SIDE as WINDOW
from dlf.export.model.partition import partition, unpartition

POSITIONS = WINDOW * WINDOW
SHIFT = WINDOW // 2
# Used instead of -inf: its exp() is 0 in float32 and float16, and unlike -inf it may be multiplied by 0.
MASKED = -1e4


def spread(table: Tensor) -> Tensor:
    """A (31, 31) table of displacements as one of pairs, (256, 256): [i, j] is [row_j - row_i + 15, col_j - col_i + 15]."""
    side = torch.arange(WINDOW)
    displacement = side[None, :] - side[:, None] + WINDOW - 1
    return table[displacement][:, :, displacement].transpose(1, 2).reshape(POSITIONS, POSITIONS)


def boundary_masks() -> tuple[Tensor, Tensor]:
    """Which pairs of positions of a shifted window come from opposite borders of the map.

    Returns (upper_lower, left_right), bool (256, 256) each: for windows of the last row and of the last column.
    """
    far = torch.arange(WINDOW) >= WINDOW - SHIFT
    rows, columns = far.repeat_interleave(WINDOW), far.repeat(WINDOW)
    return rows[:, None] != rows[None, :], columns[:, None] != columns[None, :]


def shift_mask(down: int, across: int) -> Tensor:
    """Additive mask (down * across, 1, 256, 256) of the shifted windows of a map: `boundary_masks` of the last row and column.

    Made from one label for each position of each window, so that an exported graph need not hold the masks.
    """
    far = (torch.arange(WINDOW) >= WINDOW - SHIFT).float()
    last_row = (torch.arange(down) == down - 1).float()[:, None, None]
    last_column = (torch.arange(across) == across - 1).float()[None, :, None]
    rows = (last_row * far.repeat_interleave(WINDOW)).expand(-1, across, -1).reshape(-1, POSITIONS)
    columns = (last_column * far.repeat(WINDOW)).expand(down, -1, -1).reshape(-1, POSITIONS)
    rows_apart, columns_apart = ((x[:, :, None] - x[:, None, :]).abs() for x in (rows, columns))
    return MASKED * (rows_apart + columns_apart)[:, None]


class WindowAttention(nn.Module):
    """Self-attention inside each window, with a learned bias for each pair of positions.

    The first block of a run (`relative`) has one value for each displacement, the others one for each pair.
    """

    def __init__(self, width: int, shifted: bool, relative: bool) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.shifted = shifted
        self.relative = relative
        side = 2 * WINDOW - 1
        self.pos_embedding = nn.Parameter(torch.randn(side, side) if relative else torch.randn(POSITIONS, POSITIONS))
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, height, width, channels) to the same."""
        n, height, width, _ = x.shape
        bias = (spread(self.pos_embedding) if self.relative else self.pos_embedding)[None, None]
        if self.shifted:
            x = x.roll((-SHIFT, -SHIFT), (1, 2))
            bias = (bias + shift_mask(height // WINDOW, width // WINDOW)).repeat(n, 1, 1, 1)
        qkv = self.to_qkv(partition(x)).unflatten(-1, (3, self.heads, HEAD_WIDTH))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = unpartition(self.to_out(attention(q, k, v, bias).transpose(1, 2).flatten(2)), height, width)
        return out.roll((SHIFT, SHIFT), (1, 2)) if self.shifted else out


class SwinBlock(nn.Module):
    """Window attention and MLP, each pre-norm with its residual."""

    def __init__(self, width: int, shifted: bool, relative: bool) -> None:
        super().__init__()
        self.norm_attn = nn.LayerNorm(width)
        self.attention_block = WindowAttention(width, shifted, relative)
        self.norm_mlp = nn.LayerNorm(width)
        net = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_block = nn.Sequential(OrderedDict(net=net))

    def forward(self, x: Tensor) -> Tensor:
        """(n, height, width, channels) to the same."""
        x = x + self.attention_block(self.norm_attn(x))
        return x + self.mlp_block(self.norm_mlp(x))


class SwinRun(nn.Sequential):
    """Consecutive Swin blocks; odd ones are shifted. `first` is the index of block 0 in the checkpoint."""

    def __init__(self, width: int, blocks: int, first: int) -> None:
        super().__init__()
        for i in range(blocks):
            self.add_module(str(first + i), SwinBlock(width, shifted=i % 2 == 1, relative=i == 0))
