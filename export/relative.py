"""Deviations as shares of what deviates, also of outputs that are 0 throughout, as a silent detail latent is."""

import math
from typing import SupportsFloat


def relative(deviation: SupportsFloat, size: SupportsFloat) -> float:
    """A deviation as a share of a size: 0 where nothing deviates, whatever the size; infinite, from a size of 0."""
    if float(size):
        return float(deviation) / float(size)
    return math.inf if float(deviation) else 0.0
