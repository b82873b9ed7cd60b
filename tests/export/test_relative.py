"""Deviations as shares: the quotient, and what it is beside zeros."""

import math

import numpy as np
import pytest

from dlf.export.relative import relative


@pytest.mark.parametrize(
    ("deviation", "size", "expected"), [(1, 4, 0.25), (0, 4, 0.0), (0, 0, 0.0), (1e-30, 0, math.inf), (4, 1, 4.0)]
)
def test_share(deviation: float, size: float, expected: float) -> None:
    assert relative(np.float32(deviation), np.float32(size)) == pytest.approx(expected)


@pytest.mark.parametrize("size", [0.0, 1.0, math.nan])
def test_what_is_no_number_never_passes_a_bar(size: float) -> None:
    assert not relative(math.nan, size) <= 1e-4
