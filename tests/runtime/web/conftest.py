"""The built page in headless Chromium; tests skip, with the reason, where `make web` was not run or a program is missing."""

import shutil
from pathlib import Path

import pytest

from dlf.runtime.web import chromium

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A copy of the built folder, with the built-in model as it is beside the one of pages."""
    built = ROOT / "build" / "web"
    if missing := chromium.missing(built):
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("site") / "web"
    shutil.copytree(built, folder)
    shutil.copytree(ROOT / "runtime" / "models" / "builtin", folder / "builtin")
    return folder


@pytest.fixture(scope="session")
def page(site):
    with chromium.serving(site) as page:
        yield page


@pytest.fixture(scope="session")
def bare_page(site):
    """The same without the headers that threads need."""
    with chromium.serving(site, isolated=False) as page:
        yield page
