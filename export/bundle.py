"""Write a bundle: the stages' graphs, the entropy model, and the manifest with their hashes."""

import json
import logging
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from dlf.export.integer_prior import cdf_indexes, entropy_tables
from dlf.export.model import DLF
from dlf.export.stages import PARITY_SIZES, Sample, check_stage, export_stage, run_codec, stages
from dlf.runtime.backends.onnxruntime import ONNXRuntimeBackend
from dlf.runtime.bundles import references
from dlf.runtime.bundles.bundle import file_sha256
from dlf.runtime.errors import ExportError
from dlf.runtime.formats import BUNDLE_FORMAT, BUNDLE_VERSION
from dlf.runtime.libdlf import EntropyModel

log = logging.getLogger(__name__)

# How many more bytes the integer prior may cost than the float prior, on the made-up images of the parity check.
MAX_PRIOR_COST = 0.01


def prior_cost(model: DLF, entropy: EntropyModel, sample: Sample) -> dict[str, int]:
    """Return the bytes of an analysis sample's detail streams with the authors' float prior, and with the integer prior."""
    _, y = sample.outputs
    quantised = model.hybrid_codec.quantize_feat.quantise(y)
    bytes_float = bytes_integer = 0
    for i in range(len(y)):
        symbols = np.concatenate([s[i].numpy().ravel() for s in quantised.symbols]).astype(np.int32)
        scales = np.concatenate([s[i].numpy().ravel() for s in quantised.scales])
        bytes_float += len(entropy.rans_encode(symbols, cdf_indexes(scales)))
        bytes_integer += len(entropy.encode_detail(y[i].numpy()))
    return {"float": bytes_float, "integer": bytes_integer}


def write_bundle(
    model: DLF,
    output: Path,
    name: str,
    *,
    license: str | None = None,
    half_weights: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Export a model to the bundle `output`, which is written whole or not at all; it replaces a bundle that is there.

    With `half_weights` the model's weights are rounded to float16 and stored in it, which halves the size on disk; the stages
    still compute in float32. `progress` is called with the name of each step.
    `license` is the model's licence, as the manifest states it; None if it is unknown.

    Raises:
        ExportError: a stage or the integer prior does not give what the model gives, or a weight is too large for float16;
            nothing is written.
    """
    if half_weights:
        _round_to_half(model)
    with writing(output) as folder:
        _fill(model, folder, name, license, half_weights, progress)


@contextmanager
def writing(output: Path) -> Iterator[Path]:
    """Give an empty folder to the block. It replaces `output` when the block ends, and is deleted if the block raises."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        yield folder
        if output.exists():
            output.rename(Path(temporary) / "replaced")
        folder.rename(output)


def _round_to_half(model: DLF) -> None:
    for name, weight in model.named_parameters():
        weight.copy_(weight.half())
        if not weight.isfinite().all():
            raise ExportError(f"{name} has values too large for float16; export without half weights")


@dataclass(frozen=True)
class _Graphs:
    """The stages of a bundle that has no manifest yet."""

    files: dict[str, Path]

    def stage(self, name: str) -> Path:
        return self.files[name]


def _fill(model: DLF, folder: Path, name: str, license: str | None, half_weights: bool, progress: Callable[[str], None]) -> None:
    progress("integer prior")
    data = entropy_tables(model).to_bytes()
    (folder / "entropy.bin").write_bytes(data)
    entropy = EntropyModel(data)

    progress("reference run in PyTorch")
    runs = [run_codec(model, *size) for size in PARITY_SIZES]
    costs = [prior_cost(model, entropy, run["analysis"]) for run in runs]
    cost = {key: sum(c[key] for c in costs) for key in costs[0]}
    log.info("detail streams: %d bytes with the float prior, %d with the integer prior", cost["float"], cost["integer"])
    if cost["integer"] > cost["float"] * (1 + MAX_PRIOR_COST):
        raise ExportError(
            f"the integer prior codes {cost['integer']} bytes where the float prior codes {cost['float']}; "
            f"at most {MAX_PRIOR_COST:.0%} more is accepted"
        )

    described: dict[str, Any] = {}
    for stage in stages(model.config):
        progress(f"stage {stage.name}")
        path = export_stage(model, stage, folder, half_weights)
        described[stage.name] = {
            "file": path.name,
            "precision": "fp32",
            "inputs": [port.describe() for port in stage.inputs],
            "outputs": [port.describe() for port in stage.outputs],
            "parity": check_stage(stage, path, [run[stage.name] for run in runs]),
        }

    progress("reference outputs")
    backend = ONNXRuntimeBackend(torch.get_num_threads())
    graphs = _Graphs({name: folder / stage["file"] for name, stage in described.items()})
    reference = references.make(entropy, lambda stage, inputs: backend.load(graphs, stage)(inputs))
    (folder / references.NAME).write_bytes(reference)

    progress("manifest")
    manifest = {
        "format": BUNDLE_FORMAT,
        "format_version": BUNDLE_VERSION,
        "model": {"name": name, **({"license": license} if license else {}), "config": asdict(model.config)},
        "fingerprint": f"{entropy.fingerprint:04x}",
        "precision": "fp32",
        "weights": "fp16" if half_weights else "fp32",
        "stages": described,
        "prior_bytes": cost,
        "files": {file.name: vouch(file) for file in sorted(folder.iterdir())},
        "exporter": {"python": platform.python_version(), **versions("dlf", "torch", "onnx", "onnxscript", "onnxruntime")},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of packages for the manifest."""
    # ONNX Runtime is a module of two packages, one for the CPU and one for GPUs.
    return {package: onnxruntime.__version__ if package == "onnxruntime" else version(package) for package in packages}


def vouch(file: Path) -> dict[str, object]:
    """Return a file's entry in the manifest: its size in bytes and its SHA-256."""
    return {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
