"""The machine: libraries, processor, NVIDIA GPUs."""

import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# The libraries that the runtime can use, and those that bundles and engines are made with.
PACKAGES = (
    "numpy",
    "pillow",
    "openvino",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt_rtx",
    "torch",
    "onnx",
    "triton",
)

_QUERY = ("name", "compute_cap", "memory.total", "driver_version")  # of nvidia-smi


@dataclass(frozen=True)
class GPU:
    """An NVIDIA GPU, as its driver describes it."""

    name: str
    compute_capability: str  # such as "8.9"
    memory: str  # such as "23034 MiB"
    driver: str


def packages() -> dict[str, str | None]:
    """The version of each of `PACKAGES`; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def processor() -> str:
    """The CPU's name, if the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def gpus() -> list[GPU]:
    """The NVIDIA GPUs that nvidia-smi lists; none where there is no driver."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.split(", ") for line in listed.splitlines())
    return [GPU(*row) for row in rows if len(row) == len(_QUERY)]
