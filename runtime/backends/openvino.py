"""Stages in OpenVINO, on the CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from dlf.runtime.backends import Arrays, HasStages, Stage, require_float32, telemetry
from dlf.runtime.libdlf import library

with telemetry.off():
    import openvino


class OpenVINOBackend:
    """OpenVINO's CPU plugin in float32, tuned for one image at a time; see `dlf.runtime.backends.Backend`."""

    name = "openvino"
    precision = "fp32"
    on_cpu = True

    def __init__(self, threads: int | None) -> None:
        self._core = openvino.Core()
        self.device: str = self._core.get_property("CPU", "FULL_DEVICE_NAME")
        self.versions = {"openvino": openvino.get_version()}
        # The plugin's own default is bfloat16 where the processor has it.
        self._config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self.threads = threads
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads

    def load(self, bundle: HasStages, stage: str) -> Stage:
        """See `dlf.runtime.backends.Backend`."""
        file = bundle.stage(stage)
        with _releasing_pages(file):
            compiled = self._core.compile_model(file, "CPU", self._config)
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
    """Keep the pages of a model's files out of this process's memory, while OpenVINO packs them into memory of its own.

    See native/src/support/mapped_pages.h.
    """
    begun = library().dlf_mapped_pages_begin(os.fsencode(file))
    try:
        yield
    finally:
        library().dlf_mapped_pages_end(begun)


open_backend = OpenVINOBackend
