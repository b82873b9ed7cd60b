from pathlib import Path

import pytest
from helpers.doctor import add_references


@pytest.fixture
def referenced(bundle_copy: Path) -> Path:
    """The small bundle with reference outputs."""
    pytest.importorskip("onnxruntime")
    return add_references(bundle_copy)
