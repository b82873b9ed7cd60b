"""The interface of libdlf: what dlf.h marks, and the committed list of all that a compiled program depends on.

interface.txt changes only by intent: after a change that is meant, `cd tests; python -m helpers.interface` writes it again.
Between two versions with one SONAME it may grow, by functions and by fields at a struct's end, and nothing else.
"""

import os
import re
import subprocess

import pytest
from helpers import interface
from helpers.c import tool

from dlf.runtime import libdlf

INCLUDE = [f"-I{libdlf.include_path()}"]
HEADER = (libdlf.include_path() / "dlf.h").read_text()


def test_the_interface_is_the_committed_one():
    assert interface.describe() == interface.COMMITTED.read_text(), "if this is meant: cd tests; python -m helpers.interface"


def test_every_struct_that_grows_says_where_the_version_ends():
    structs = re.findall(r"^typedef struct (\w+) \{\n(.*?)^\} \1;", HEADER, re.DOTALL | re.MULTILINE)
    growing = {name: body for name, body in structs if "size_t struct_size;" in body}
    assert len(growing) > 10
    assert [name for name, body in growing.items() if not body.rstrip().endswith("/* Version 0.1 ends here. */")] == []


def test_every_result_is_marked():
    declared = re.findall(r"^(.*)DLF_API dlf_result (dlf_\w+)\(", HEADER, re.MULTILINE)
    assert len(declared) >= 30
    assert [name for before, name in declared if before != "DLF_NODISCARD "] == []


@pytest.mark.parametrize(("standard", "language"), [("c11", "c"), ("c2x", "c"), ("c++17", "c++"), ("c++11", "c++")])
def test_a_compiler_warns_of_a_dropped_result(standard, language):
    call = "dlf_tokens_unpack(0, 0, 1, 0)"
    for statement, warned in ((f"{call};", True), (f"if ({call} != DLF_OK) return 1;", False)):
        program = f"#include <dlf.h>\nint main(void) {{ {statement} return 0; }}\n"
        command = [tool("cc", "gcc"), f"-std={standard}", "-x", language, "-c", "-", "-o", os.devnull, *INCLUDE]
        told = subprocess.run(command, input=program, capture_output=True, text=True, check=True).stderr
        assert ("-Wunused-result" in told) == warned, told
