"""The machine on which the figures were measured."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import dlf
from dlf.benchmarks import without_avx512

# The widest vectors that a processor has, by the flag of /proc/cpuinfo: on them speed depends most, int8's above all.
VECTORS = {"avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI", "avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}


def describe() -> dict[str, str]:
    """Return the processor and its vectors, the cores that this process may use, memory, system and Python, as text."""
    flags = (_field("/proc/cpuinfo", "flags") or _field("/proc/cpuinfo", "Features") or "").split()
    hidden = without_avx512.hidden()
    if hidden:
        flags = [flag for flag in flags if not flag.startswith(("avx512", "avx_vnni"))]
    vectors = next((name for flag, name in VECTORS.items() if flag in flags), "unknown")
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "vectors": f"{vectors}; AVX-512 hidden" if hidden else vectors,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        "dlf": dlf.__version__,
    }


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _field(file: str, name: str) -> str | None:
    path = Path(file)
    for line in path.read_text().splitlines() if path.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
