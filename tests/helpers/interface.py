"""What a program that was compiled with dlf.h depends on, as text: functions, constants, and the layout of structs.

`cd tests; python -m helpers.interface` writes it to interface.txt, after a change that is meant.
"""

import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from helpers import native
from helpers.c import ROOT, output, tool

from dlf.runtime import libdlf, libdlf_abi

COMMITTED = ROOT / "tests" / "runtime" / "native" / "interface.txt"
SOURCES = ROOT / "runtime" / "native" / "src"
STRUCTS = {
    "dlf_limits": libdlf_abi.Limits,
    "dlf_file_info": libdlf_abi.FileInfo,
    "dlf_metadata": libdlf_abi.Metadata,
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


def layouts() -> dict[str, list[int]]:
    """Struct -> its size, and the offset and size of each field that ctypes knows, as a C compiler has them."""
    lines = []
    for struct, kind in STRUCTS.items():
        values = [f"sizeof({struct})"]
        for name, *_ in kind._fields_:
            values += [f"offsetof({struct}, {name})", f"sizeof((({struct} *)0)->{name})"]
        lines.append(f'printf("{struct}"); ' + "".join(f'printf(" %zu", {value}); ' for value in values) + 'puts("");')
    source = '#include <stdio.h>\n#include "api/levels_api.h"\nint main(void) {\n' + "\n".join(lines) + "\nreturn 0;\n}\n"
    includes = [f"-I{libdlf.include_path()}", f"-I{SOURCES}"]
    with TemporaryDirectory() as folder:
        program = Path(folder) / "layout"
        compiler = [tool("cc", "gcc"), "-std=c11", "-x", "c", "-"]
        subprocess.run([*compiler, *includes, "-o", program], input=source, text=True, check=True)
        told = output(str(program))
    return {words[0]: [int(word) for word in words[1:]] for words in map(str.split, told.splitlines())}


def describe() -> str:
    """The interface: each function that the library exports with its declaration, each constant, each struct's fields."""
    header = (libdlf.include_path() / "dlf.h").read_text()
    symbols = output(tool("nm", "binutils"), "-DP", "--defined-only", str(libdlf.library_path())).splitlines()
    exported = {line.partition("@")[0] for line in symbols if line.split()[1] == "T"}  # not the version's own symbol
    declared = {
        name: " ".join(f"{result}{name}({parameters})".split())
        for result, name, parameters in re.findall(r"DLF_API ([\w *]+?)\b(dlf_\w+)\(([^;]*)\) DLF_NOEXCEPT;", header)
    }
    lines = ["functions", *(f"  {declared.get(name, f'{name}: not for applications')}" for name in sorted(exported))]
    lines += ["constants", *sorted(f"  {name} {value}" for name, value in re.findall(r"\b(DLF_[A-Z_0-9]+) = (\d+)", header))]
    for struct, (size, *places) in layouts().items():
        fields = [name for name, *_ in STRUCTS[struct]._fields_]
        lines += [f"{struct}: {size} bytes", *(f"  {places[2 * i]} {name}" for i, name in enumerate(fields))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    COMMITTED.write_text(describe())
