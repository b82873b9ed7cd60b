"""For tests of the doctor: reference outputs for hand-made bundles, and a backend whose outputs can be changed."""

from collections.abc import Callable, Mapping
from pathlib import Path

from helpers.bundle import seal

from dlf.runtime.backends import Arrays, Stage
from dlf.runtime.backends.choice import open_backend
from dlf.runtime.bundles import references
from dlf.runtime.bundles.bundle import Bundle

Spoil = Callable[[Arrays], Arrays]


def add_references(folder: Path) -> Path:
    """Store the outputs of a toy bundle's stages in ONNX Runtime."""
    bundle, backend = Bundle(folder), open_backend("onnxruntime", 1)
    content = references.make(bundle.entropy, lambda stage, inputs: backend.load(bundle, stage)(inputs))
    (folder / references.NAME).write_bytes(content)
    seal(folder)
    return folder


class FakeBackend:
    """ONNX Runtime, with the outputs of a stage changed by `spoil[stage]`."""

    name = "fake"
    device = "CPU"
    versions: Mapping[str, str] = {"fake": "1"}
    on_cpu = False  # so that a stage's own outputs are judged, not libdlf's
    threads = 1

    def __init__(self, precision: str = "fp32", **spoil: Spoil) -> None:
        self.precision = precision
        self._spoil = spoil
        self._real = open_backend("onnxruntime", 1)

    def load(self, bundle: Bundle, stage: str) -> Stage:
        loaded, spoil = self._real.load(bundle, stage), self._spoil.get(stage, lambda outputs: outputs)
        return lambda inputs: spoil(loaded(inputs))
