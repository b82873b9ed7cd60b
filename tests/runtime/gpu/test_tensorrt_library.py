from collections.abc import Iterator
from types import ModuleType

import pytest
from helpers.libraries import needs_tensorrt

import dlf
from dlf.runtime.gpu import tensorrt_library


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    tensorrt_library.load.cache_clear()
    yield
    tensorrt_library.load.cache_clear()


@pytest.mark.parametrize(
    ("here", "chosen"),
    [(["tensorrt"], "tensorrt"), (["tensorrt_rtx"], "tensorrt_rtx"), (["tensorrt_rtx", "tensorrt"], "tensorrt")],
)
def test_whichever_is_installed_is_imported_once(monkeypatch: pytest.MonkeyPatch, here: list[str], chosen: str) -> None:
    imported: list[str] = []
    monkeypatch.setattr(tensorrt_library, "find_spec", lambda name: name in here)
    monkeypatch.setattr(tensorrt_library, "import_module", lambda name: imported.append(name) or ModuleType(name))
    library = tensorrt_library.load()
    assert library is tensorrt_library.load()
    assert imported == [chosen]
    assert tensorrt_library.is_rtx(library) == (chosen == "tensorrt_rtx")


@needs_tensorrt
def test_the_real_library_is_found() -> None:
    library = tensorrt_library.load()
    assert library.__name__ in tensorrt_library.LIBRARIES
    assert tensorrt_library.is_rtx(library) == hasattr(library, "ComputeCapability")


def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_library, "find_spec", lambda name: None)
    assert tensorrt_library.installed() is None
    with pytest.raises(dlf.BackendMissingError, match=r"pip install 'dlf\[tensorrt-rtx\]'"):
        tensorrt_library.load()


def test_library_that_cannot_be_imported_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError("libtensorrt_rtx.so.1 is missing")

    monkeypatch.setattr(tensorrt_library, "find_spec", lambda name: name == "tensorrt_rtx")
    monkeypatch.setattr(tensorrt_library, "import_module", fail)
    with pytest.raises(dlf.BackendFailedError, match=r"TensorRT-RTX cannot be imported.*libtensorrt_rtx\.so\.1 is missing"):
        tensorrt_library.load()
