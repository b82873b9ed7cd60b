"""From maps to the tokens of their tiles and back. Tiles are in row-major order, and so are the positions inside a tile."""

from torch import Tensor

from dlf.export.model.config import GRID


def to_tiles(x: Tensor) -> Tensor:
    """(n, 16h, 16w, c) to (n*h*w, 256, c)."""
    n, height, width, c = x.shape
    x = x.reshape(n, height // GRID, GRID, width // GRID, GRID, c).transpose(2, 3)
    return x.reshape(-1, GRID * GRID, c)


def from_tiles(x: Tensor, height: int, width: int) -> Tensor:
    """(n*h*w, 256, c) to (n, height, width, c), with height = 16h and width = 16w."""
    down, across, c = height // GRID, width // GRID, x.shape[-1]
    x = x.reshape(-1, down, across, GRID, GRID, c).transpose(2, 3)
    return x.reshape(-1, height, width, c)
