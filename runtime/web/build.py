"""Builds what web pages need besides a model: `make web`, or python runtime/web/build.py FOLDER.

FOLDER gets the demonstration page and `dlf/` (the JavaScript, core.wasm and onnxruntime-web's files). It needs PyPI's ziglang,
which holds the C++ compiler, and npm, which fetches onnxruntime-web into FOLDER/../web-npm. Models are `dlf-export --web`'s.
"""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parent / "native"
UNITS = (
    "codec/container.cpp",
    "codec/metadata.cpp",
    "codec/payload.cpp",
    "codec/pixels.cpp",
    "entropy/detail_coder.cpp",
    "entropy/entropy_model.cpp",
    "entropy/prior.cpp",
    "entropy/prior_simd128.cpp",
    "entropy/prior_tables.cpp",
    "entropy/rans.cpp",
    "entropy/tokens.cpp",
    "entropy/vq.cpp",
    "support/crc16.cpp",
    "support/crc32.cpp",
    "support/sha256.cpp",
)
FLAGS = (
    *("-target", "wasm32-wasi", "-mexec-model=reactor", "-msimd128"),  # which all browsers have
    *("-std=c++17", "-O3", "-DNDEBUG", "-ffp-contract=off"),
    *("-fexceptions", "-fignore-exceptions", "-Wl,--strip-all"),  # see core.cpp
)
ORT = (  # on the CPU, and with WebGPU
    *("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    *("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
)


def compile_core(output: Path) -> None:
    """Compile the entropy core to WebAssembly."""
    sources = [HERE / "core.cpp", *(NATIVE / "src" / unit for unit in UNITS)]
    include = [f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}"]
    subprocess.run([sys.executable, "-m", "ziglang", "c++", *FLAGS, *include, *map(str, sources), "-o", str(output)], check=True)


def fetch_packages(folder: Path) -> Path:
    """Install package.json's packages; return onnxruntime-web's folder of built files."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "package.json", folder)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, check=True)
    return folder / "node_modules" / "onnxruntime-web" / "dist"


def main() -> None:
    """Build into the folder that the command line names."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    output = Path(sys.argv[1])
    dist = fetch_packages(output.parent / "web-npm")
    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(HERE.parent.parent / "examples" / "web", output)
    (output / "dlf" / "ort").mkdir(parents=True)
    for script in (*HERE.glob("*.js"), HERE / "dlf.d.ts"):
        shutil.copy(script, output / "dlf")
    for name in ORT:
        shutil.copy(dist / name, output / "dlf" / "ort")
    compile_core(output / "dlf" / "core.wasm")


if __name__ == "__main__":
    main()
