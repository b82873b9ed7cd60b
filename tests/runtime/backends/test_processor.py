from pathlib import Path

import pytest

from dlf.runtime.backends import processor

# The line of /proc/cpuinfo that names a processor's instructions, cut short.
WITHOUT = "flags\t\t: fpu sse4_2 fma avx2 avx512f avx512bw bmi2\n"
WITH = (
    "flags\t\t: avx2 avx512f avx512_vnni\n",
    "flags\t\t: avx2 avx_vnni vaes\n",
    "Features\t: fp asimd asimddp sve\n",
)


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "CPUINFO", file)
    return file


@pytest.mark.parametrize("line", WITH)
def test_dot_products_are_found_by_their_names(cpuinfo: Path, line: str) -> None:
    cpuinfo.write_text(WITHOUT)
    assert not processor.has_int8_dot_products()
    cpuinfo.write_text(WITHOUT + line)
    assert processor.has_int8_dot_products()


def test_a_system_that_does_not_tell_has_none(cpuinfo: Path) -> None:
    assert not cpuinfo.exists()
    assert not processor.has_int8_dot_products()
