"""Stages in OpenVINO, on the CPU."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from dlf.runtime.backends import Arrays, HasDigests, Shapes, Stage, compiled_cache, require_float32, telemetry
from dlf.runtime.formats import LARGEST_KEPT_STAGE
from dlf.runtime.libdlf import library

with telemetry.off():
    import openvino

_log = logging.getLogger(__name__)


class OpenVINOBackend:
    """OpenVINO's CPU plugin in float32, tuned for one image at a time; see `dlf.runtime.backends.Backend`."""

    name = "openvino"
    precision = "fp32"
    on_cpu = True

    def __init__(self, threads: int | None) -> None:
        self._core = openvino.Core()
        self.device: str = self._core.get_property("CPU", "FULL_DEVICE_NAME")
        self.versions = {"openvino": openvino.get_version()}
        # By its own default the plugin rounds where the processor makes it quick: to bfloat16 with AMX, and what meets int8
        # weights to int8 with AVX-512 VNNI.
        self._config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.threads = threads
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads

    def load(self, bundle: HasDigests, stage: str) -> Stage:
        """See `dlf.runtime.backends.Backend`."""
        file = bundle.stage(stage)
        return self._loaded(file, self._compiled(bundle, stage, file))

    def load_for_one_run(self, bundle: HasDigests, stage: str, shapes: Shapes) -> Stage:
        """See `dlf.runtime.backends.CanLoadForOneRun`.

        Of a graph without unknown shapes OpenVINO lays out all maps in one block, in which those share a place that are not
        needed at the same time. A stage that is kept compiled, for all shapes, is small and loads faster.
        """
        file = bundle.stage(stage)
        if _is_kept(file):
            return self.load(bundle, stage)
        return self._loaded(file, self._compile(file, shapes))

    def _loaded(self, file: Path, compiled: Any) -> Stage:
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

    def _compiled(self, bundle: HasDigests, stage: str, file: Path) -> Any:
        if not _is_kept(file):
            return self._compile(file)
        place = compiled_cache.place(bundle.stage_digest(stage), "openvino", self.versions["openvino"], self._config)
        content = compiled_cache.read(place)
        if content is not None:
            try:
                return self._core.import_model(content, "CPU", self._config)
            except RuntimeError as error:
                _log.info("OpenVINO does not take the stage %s that is kept in %s (%s); it is compiled.", stage, place, error)
        compiled = self._compile(file)
        compiled_cache.write(place, compiled.export_model().getvalue())
        return compiled

    def _compile(self, file: Path, shapes: Shapes | None = None) -> Any:
        with _releasing_pages(file):
            model = self._core.read_model(file)
            if shapes is not None:
                model.reshape(dict(shapes))
            return self._core.compile_model(model, "CPU", self._config)


def _is_kept(file: Path) -> bool:
    """Whether a stage is kept compiled, by the bytes of its graph and of the weights beside it."""
    weights = file.with_name(f"{file.name}.data")
    return file.stat().st_size + (weights.stat().st_size if weights.exists() else 0) <= LARGEST_KEPT_STAGE


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
