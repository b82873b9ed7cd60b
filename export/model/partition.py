"""Maps cut into blocks of 16x16 positions, and put together again.

A tile (what the ViT sees at once) and a Swin window are both such a block. Blocks are in row-major order, and so are
the positions inside a block.
"""

from torch import Tensor

SIDE = 16


def partition(x: Tensor) -> Tensor:
    """(n, 16h, 16w, c) to (n*h*w, 256, c)."""
    n, height, width, c = x.shape
    x = x.reshape(n, height // SIDE, SIDE, width // SIDE, SIDE, c).transpose(2, 3)
    return x.reshape(-1, SIDE * SIDE, c)


def unpartition(x: Tensor, height: int, width: int) -> Tensor:
    """(n*h*w, 256, c) to (n, height, width, c), with height = 16h and width = 16w."""
    down, across, c = height // SIDE, width // SIDE, x.shape[-1]
    x = x.reshape(-1, down, across, SIDE, SIDE, c).transpose(2, 3)
    return x.reshape(-1, height, width, c)
