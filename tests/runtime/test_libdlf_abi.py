"""The structs and functions that ctypes is told of are those of the headers, as a C compiler sees them."""

import ctypes
import re

import pytest
from helpers.interface import SOURCES, STRUCTS, layouts

from dlf.runtime import libdlf, libdlf_abi


@pytest.fixture(scope="module")
def layout() -> dict[str, list[int]]:
    return layouts()


@pytest.mark.parametrize("struct", STRUCTS)
def test_struct_is_the_headers(layout, struct):
    kind = STRUCTS[struct]
    fields = [getattr(kind, name) for name, *_ in kind._fields_]
    assert layout[struct] == [ctypes.sizeof(kind), *(value for field in fields for value in (field.offset, field.size))]


@pytest.mark.parametrize("function", libdlf_abi.FUNCTIONS)
def test_function_is_the_headers(function):
    ours = (SOURCES / name for name in ("api/levels_api.h", "backends/order_api.h", "support/mapped_pages_api.h"))
    headers = "".join(path.read_text() for path in (libdlf.include_path() / "dlf.h", *ours))
    declared = re.search(rf"DLF_API ([\w *]+?)\b{function}\(([^)]*)\) DLF_NOEXCEPT;", headers)
    assert declared
    result, parameters = libdlf_abi.FUNCTIONS[function]
    texts = [text.strip() for text in declared[2].split(",") if text.strip() != "void"]
    assert [fits(text) for text in texts] == [kind_of(each) for each in parameters]
    assert fits(declared[1] + "result") == kind_of(result)


def fits(declaration: str) -> str:
    """What a declared parameter or result is."""
    if "*" in declaration:
        return "pointer"
    words = declaration.split()[:-1] or [declaration.removesuffix("result")]
    # To ctypes a size_t is a uint64_t.
    return {"dlf_result": "int", "void": "nothing", "uint64_t": "size"}.get(words[-1], words[-1].removesuffix("_t"))


def kind_of(declared: object) -> str:
    """The same, of what ctypes is told."""
    plain = {None: "nothing", ctypes.c_int: "int", ctypes.c_size_t: "size", ctypes.c_uint32: "uint32"}
    return plain.get(declared, "pointer")  # type: ignore[call-overload, no-any-return]
