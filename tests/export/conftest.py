"""What tests of the parity gate and of conversion share."""

import pytest
from helpers.parity import Difference

from dlf.export import parity


@pytest.fixture
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate measures a substitute for LPIPS, whose weights a test must not fetch."""
    monkeypatch.setattr(parity, "LPIPS", Difference)
