"""The coder computes with integers only, according to its machine code."""

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dlf.runtime.libdlf import library_path

NATIVE = Path(__file__).parents[3] / "runtime" / "native"
FLAGS = {
    "prior.cpp": (),
    "prior_kernels.cpp": (),
    "prior_scalar.cpp": (),
    "prior_tables.cpp": (),
    "prior_avx2.cpp": ("-mavx2",),
    "prior_avx512.cpp": ("-mavx512f", "-mavx512bw", "-mavx512vnni"),
    "rans.cpp": (),
}
# x86-64's arithmetic, comparisons and conversions of floats, in SSE, AVX and x87 spelling. Moves, logic and shuffles change no
# value; integer vectors use the same registers, so it is the names that tell.
FLOAT_ARITHMETIC = re.compile(
    r"v?(add|sub|mul|div|sqrt|min|max|rcp|rsqrt|rcp14|rsqrt14|round|rndscale|scalef|getexp|getmant|reduce|range|fixupimm"
    r"|hadd|hsub|addsub|dp|cmp\w*)(ss|sd|ps|pd|sh|ph)"
    r"|v?u?comis[sdh]|v?cvt\w+|vfn?m(add|sub)\w+"
    r"|f(i?add|i?sub|i?mul|i?div|i?ld|ist|sqrt|sin|cos|yl2x|2xm1|ptan|patan|scale|com|ucom)\w*"
)
MATHS_FUNCTIONS = re.compile(
    r"(exp|exp2|exp10|expm1|log|log2|log10|log1p|pow|sqrt|cbrt|erf|erfc|tgamma|lgamma|sin|cos|tan|tanh|floor|ceil|rint|nearbyint"
    r"|lrint|round|lround|trunc|fma|fmod)[fl]?$"
)


def mnemonics(source: Path, flags: tuple[str, ...], folder: Path) -> set[str]:
    """Of the machine code that a source gives with the library's optimisation."""
    compiler, objdump = (shutil.which(tool) for tool in ("c++", "objdump"))
    if compiler is None or objdump is None:
        pytest.skip("this test needs c++ and objdump (binutils)")
    binary = folder / "binary.o"
    options = ("-std=c++17", "-O3", "-DNDEBUG", "-fPIC", "-ffp-contract=off", f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'src'}")
    subprocess.run([compiler, *options, *flags, "-c", str(source), "-o", str(binary)], check=True)
    code = subprocess.run([objdump, "-d", "--no-show-raw-insn", str(binary)], check=True, capture_output=True, text=True).stdout
    assert "x86-64" in code, "this test knows the mnemonics of x86-64 alone"
    return set(re.findall(r"^\s+[0-9a-f]+:\s+(?:(?:lock|rep\w*|bnd|notrack|cs|ds|data16)\s+)*(\w+)", code, re.MULTILINE))


def x86_only() -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the mnemonics are those of x86-64")


@pytest.mark.parametrize("name", FLAGS)
def test_no_float_arithmetic(name, tmp_path):
    x86_only()
    used = mnemonics(NATIVE / "src" / "entropy" / name, FLAGS[name], tmp_path)
    assert "ret" in used
    assert {m for m in used if FLOAT_ARITHMETIC.fullmatch(m)} == set()


def test_every_source_of_the_path_is_looked_at():
    sources = {path.name for pattern in ("prior*.cpp", "rans*.cpp") for path in (NATIVE / "src" / "entropy").glob(pattern)}
    assert sources - {"prior_neon.cpp", "prior_simd128.cpp"} == set(FLAGS)


@pytest.mark.parametrize(
    "statement",
    ["x + y", "x * y - 1", "x / y", "x < y ? 1.0f : y", "float(int(x))", "float(double(x) + y)", "__builtin_sqrtf(x)"],
)
@pytest.mark.parametrize("flags", [(), ("-mavx2", "-mfma", "-ffp-contract=fast"), ("-mavx512f",)])
def test_float_arithmetic_would_be_found(statement, flags, tmp_path):
    x86_only()
    source = tmp_path / "float.cpp"
    source.write_text(f"float f(float x, float y) {{ return {statement} + 0.5f * y; }}\n")
    assert {m for m in mnemonics(source, flags, tmp_path) if FLOAT_ARITHMETIC.fullmatch(m)}


def test_the_library_calls_no_maths_function():
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("this test needs nm (binutils)")
    output = subprocess.run(
        [nm, "-D", "--undefined-only", str(library_path())], check=True, capture_output=True, text=True
    ).stdout
    names = {line.split()[-1].split("@")[0] for line in output.splitlines()}
    assert any(name.startswith(("memcpy", "memset", "malloc")) for name in names)
    assert {name for name in names if MATHS_FUNCTIONS.match(name)} == set()
