"""The structs and functions that ctypes is told of are those of the headers, as a C compiler sees them."""

import ctypes
import re
import subprocess
from pathlib import Path

import pytest
from helpers import native
from helpers.c import tool

from dlf.runtime import libdlf, libdlf_abi

SOURCES = Path(__file__).parents[2] / "runtime" / "native" / "src"
STRUCTS = {
    "dlf_limits": libdlf_abi.Limits,
    "dlf_file_info": libdlf_abi.FileInfo,
    "dlf_entropy_info": libdlf_abi.EntropyInfo,
    "dlf_bundle_info": libdlf_abi.BundleInfo,
    "dlf_tensor": native.Tensor,
    "dlf_backend": native.BackendTable,
    "dlf_model_options": native.ModelOptions,
    "dlf_model_info": native.ModelInfo,
    "dlf_allocator": native.Allocator,
    "dlf_context_options": native.ContextOptions,
    "dlf_encode_options": native.EncodeOptions,
    "dlf_image": native.Image,
}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """Struct -> its size, and the offset and size of each field that ctypes knows, as C has them."""
    folder = tmp_path_factory.mktemp("abi")
    lines = []
    for struct, kind in STRUCTS.items():
        fields = [name for name, *_ in kind._fields_]
        values = [f"sizeof({struct})"]
        for name in fields:
            values += [f"offsetof({struct}, {name})", f"sizeof((({struct} *)0)->{name})"]
        lines.append(f'printf("{struct}"); ' + "".join(f'printf(" %zu", {value}); ' for value in values) + 'puts("");')
    source = '#include <stdio.h>\n#include "api/levels_api.h"\nint main(void) {\n' + "\n".join(lines) + "\nreturn 0;\n}\n"
    (folder / "layout.c").write_text(source)
    includes = [f"-I{libdlf.include_path()}", f"-I{SOURCES}"]
    subprocess.run([tool("cc", "gcc"), "-std=c11", *includes, folder / "layout.c", "-o", folder / "layout"], check=True)
    output = subprocess.run([folder / "layout"], check=True, capture_output=True, text=True).stdout
    return {words[0]: [int(word) for word in words[1:]] for words in map(str.split, output.splitlines())}


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
