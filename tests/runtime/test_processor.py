from pathlib import Path

import pytest

from dlf.runtime.backends import open_backend, processor
from dlf.runtime.doctor import examine

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


def test_dot_products_are_found_by_their_names(cpuinfo: Path) -> None:
    assert not processor.has_int8_dot_products()  # there is no such file
    cpuinfo.write_text(WITHOUT)
    assert not processor.has_int8_dot_products()
    for line in WITH:
        cpuinfo.write_text(WITHOUT + line)
        assert processor.has_int8_dot_products()


@pytest.mark.parametrize(("line", "first"), [(WITHOUT, "fp32"), (WITH[0], "int8")])
def test_openvino_prefers_int8_where_it_is_fast_and_says_so_where_it_is_not(
    cpuinfo: Path, toy_bundle: Path, line: str, first: str
) -> None:
    pytest.importorskip("openvino")
    cpuinfo.write_text(line)
    backend = open_backend("openvino", 1)
    assert (backend.precisions[0], set(backend.precisions)) == (first, {"fp32", "fp16", "int8"})
    assert ("no int8 dot products" in backend.remark) == (first == "fp32")
    told = examine(toy_bundle, "openvino", 1).backend
    assert told is not None
    assert told["remark"] == backend.remark
