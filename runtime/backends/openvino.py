"""Stages in OpenVINO, on the CPU."""

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event, Thread
from typing import Any

from dlf.runtime.backends import Arrays, HasStages, Stage, require_float32, telemetry, winograd

with telemetry.off():
    import openvino


RELEASE_SECONDS = 0.1  # between two releases of pages: some 200 MB are packed meanwhile


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
        self._threads = threads
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads

    def load(self, bundle: HasStages, stage: str) -> Stage:
        """See `dlf.runtime.backends.Backend`."""
        file = bundle.stage(stage)
        with _releasing_pages(file):
            model = self._core.read_model(file)
            config = self._config | ({"ENABLE_CPU_PINNING": False} if winograd.replace(model, self._threads) else {})
            compiled = self._core.compile_model(model, "CPU", config)
            del model
        ports = (*compiled.inputs, *compiled.outputs)
        require_float32(file, {port.get_any_name(): port.element_type.get_type_name() for port in ports}, "f32")
        names = [output.get_any_name() for output in compiled.outputs]
        fresh = True

        def run(inputs: Arrays) -> Arrays:
            nonlocal fresh
            with _releasing_pages(file) if fresh else nullcontext():
                results = compiled(inputs)
            fresh = False
            return {name: results[name] for name in names}

        return run


@contextmanager
def _releasing_pages(file: Path) -> Iterator[None]:
    """Keep the pages of a model's files out of this process's memory.

    OpenVINO maps the weights and packs them into memory of its own, some when it compiles and the others when it first runs,
    but keeps the mapping: half of the resident memory would be weights that are not read again. OpenVINO's own setting
    ENABLE_MMAP does not help: with it off, a model of 216 MB of weights takes as much memory as without this function.
    """
    done = Event()

    def release() -> None:
        while not done.wait(RELEASE_SECONDS):
            _release_pages(file)
        _release_pages(file)

    thread = Thread(target=release, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _release_pages(file: Path) -> None:
    """Drop the pages of a model's files. The mapping is shared and read-only: one that is wanted again comes from the file."""
    madvise = ctypes.CDLL(None).madvise
    prefix = str(file.resolve())
    try:
        maps = Path("/proc/self/maps").read_text(errors="surrogateescape")  # paths may be no text
    except OSError:  # where there is no /proc the pages stay
        return
    for line in maps.splitlines():
        addresses, permissions, _, _, _, *path = line.split(maxsplit=5)
        if permissions == "r--s" and path and path[0].startswith(prefix):
            start, end = (int(address, 16) for address in addresses.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


open_backend = OpenVINOBackend
