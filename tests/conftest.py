"""Fixtures that several folders of tests share."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.bundle import make_toy_bundle
from helpers.export import tiny_model, write_synthetic
from helpers.shared import made_once

import dlf
from dlf.runtime.backends import compiled_cache
from dlf.runtime.backends.choice import INSTALL
from dlf.runtime.backends.gpu_choice import GPU_ONLY


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of tests that need the smallest model's bundle go last, but for one that goes first and makes it, so that of two
    processes none waits for it."""
    needing = list(dict.fromkeys(item.path for item in items if "tiny_bundle" in getattr(item, "fixturenames", ())))
    first, last = needing[:1], needing[1:]
    items.sort(key=lambda item: (item.path not in first, item.path in last))


@pytest.fixture(scope="session", autouse=True)
def _no_compiled_stages_of_before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In this process stages are compiled, and kept for the session, whatever this user's cache has."""
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_cache, "folder", lambda: folder)
        yield


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that a test runs in this process sets up the log; the next test has it as it was."""
    logger = logging.getLogger("dlf")
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers = handlers
    logger.setLevel(level)


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle (`helpers.bundle`); not to be changed."""
    return make_toy_bundle(tmp_path_factory.mktemp("toy") / "bundle")


@pytest.fixture
def bundle_copy(toy_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the small bundle that a test may change."""
    return Path(shutil.copytree(toy_bundle, tmp_path / "copy"))


@pytest.fixture(params=[name for name in INSTALL if name not in GPU_ONLY])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend on the CPU in turn."""
    name: str = request.param
    pytest.importorskip(name)
    return name


@pytest.fixture
def codec(toy_bundle: Path, backend: str) -> Iterator[dlf.Codec]:
    """A codec of the small bundle, on each backend in turn."""
    with dlf.Codec(toy_bundle, backend, threads=1) as codec:
        yield codec


@pytest.fixture(scope="session")
def mini_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic mini checkpoint that the golden tensors were computed from."""
    return write_synthetic(tmp_path_factory.mktemp("mini") / "mini7.ckpt", "mini", 7)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported bundle of the smallest model (`helpers.export.TINY`) with random weights; not to be changed."""
    from dlf.export.bundle import write_bundle

    return made_once(tmp_path_factory, "tiny", lambda path: write_bundle(tiny_model(), path, "tiny"))
