"""One service for the tests of a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

for package in ("starlette", "uvicorn", "prometheus_client"):
    pytest.importorskip(package)
from helpers.serve import Site, serving  # noqa: E402


@pytest.fixture(scope="module")
def site(toy_bundle: Path) -> Iterator[Site]:
    with serving(toy_bundle, batch=4, queue=6, max_body=1 << 20) as site:
        yield site
