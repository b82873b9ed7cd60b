"""Pictures for the battery."""

import numpy as np
from numpy.typing import NDArray


def picture(seed: int, most: int = 300) -> NDArray[np.uint8]:
    """Blocks of random colours, of a random size up to `most` pixels a side, (height, width, 3)."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, most + 1, 2))
    blocks = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(16, 0).repeat(16, 1)[:height, :width])
