"""Stages in OpenVINO, on the CPU."""

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

        def run(inputs: Arrays) -> Arrays:
            results = compiled(inputs)
            return {name: results[name] for name in names}

        return run


open_backend = OpenVINOBackend
