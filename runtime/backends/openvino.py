"""Stages in OpenVINO, on the CPU."""

import ctypes
import mmap
from pathlib import Path
from typing import Any

import openvino

from dlf.runtime.backends import Arrays, Stage


class OpenVINOBackend:
    """OpenVINO's CPU plugin in float32, tuned for one image at a time; see `dlf.runtime.backends.Backend`."""

    name = "openvino"
    precision = "fp32"

    def __init__(self, threads: int | None) -> None:
        self._core = openvino.Core()
        self.device: str = self._core.get_property("CPU", "FULL_DEVICE_NAME")
        self.versions = {"openvino": openvino.get_version()}
        # The plugin's own default is bfloat16 where the processor has it.
        self._config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads

    def load(self, file: Path) -> Stage:
        """Load an ONNX file."""
        compiled = self._core.compile_model(file, "CPU", self._config)
        names = [output.get_any_name() for output in compiled.outputs]
        _release_pages(file)

        def run(inputs: Arrays) -> Arrays:
            results = compiled(inputs)
            _release_pages(file)
            return {name: results[name] for name in names}

        return run


def _release_pages(file: Path) -> None:
    """Take the pages of a model's files out of this process's memory.

    OpenVINO maps the weights and packs them into memory of its own, one half when it compiles and the other when it first
    runs, but keeps the mapping; half of the resident memory would be weights that are not read again. The mapping is shared
    and read-only, so that a page that is wanted after all comes back from the file.
    """
    madvise = ctypes.CDLL(None).madvise
    prefix = str(file.resolve())
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, permissions, _, _, _, *path = line.split(maxsplit=5)
        if permissions == "r--s" and path and path[0].startswith(prefix):
            start, end = (int(address, 16) for address in addresses.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


open_backend = OpenVINOBackend
