"""Write a bundle: the stages' graphs, the entropy model, and the manifest with their hashes."""

import json
import logging
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from dlf.export import levels
from dlf.export.integer_prior import cdf_indexes, entropy_tables
from dlf.export.model import DLF
from dlf.export.output_folder import writing
from dlf.export.relative import relative
from dlf.export.stages import PARITY, PARITY_SIZES, Sample, check_stage, export_stage, run_codec, stages
from dlf.runtime.backends.choice import open_backend
from dlf.runtime.backends.onnxruntime import ONNXRuntimeBackend
from dlf.runtime.bundles import references
from dlf.runtime.bundles.bundle import Bundle, file_sha256
from dlf.runtime.errors import ExportError
from dlf.runtime.formats import BUNDLE_FORMAT, BUNDLE_VERSION, GENERATOR_BASE
from dlf.runtime.libdlf import EntropyModel
from dlf.runtime.stages import load

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
            or `output` cannot be written; nothing is written.
    """
    if half_weights:
        _round_to_half(model)
    size = sum(weight.nbytes for weight in model.parameters()) // (2 if half_weights else 1)
    with writing(output, size) as folder:
        _fill(model, folder, name, license, half_weights, progress)


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
    (base,) = stages(model.config)[-1].inner
    cut_generator(folder, described, base.describe(), levels.listed(model))

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
    _check_levels(Bundle(folder), [run["generator"] for run in runs])


def _check_levels(bundle: Bundle, samples: Sequence[Sample]) -> None:
    """Compare the generator as libdlf's levels finish it with PyTorch, unless this processor has no kernels for them.

    Raises:
        ExportError: an image is further than `PARITY` from PyTorch's.
    """
    if bundle.levels(None) is None:
        log.warning(
            "the generator's levels are listed, and not checked: libdlf has no kernels for their widths or this processor"
        )
        return
    stage = load(open_backend("onnxruntime", torch.get_num_threads()), bundle, "generator")
    for sample in samples:
        (latent,), (expected,) = sample.inputs, sample.outputs
        image = stage({"latent": latent.numpy()})["image"]
        error = relative(np.abs(image - expected.numpy()).max(), np.abs(expected.numpy()).max())
        log.info("generator with libdlf's levels at %s: relative error %.1e", sample.size, error)
        if not error <= PARITY:  # also refuses NaN
            raise ExportError(
                f"libdlf's levels give an image that is {error:.1e} from PyTorch's; at most {PARITY:.0e} is accepted"
            )


def cut_generator(folder: Path, described: dict[str, Any], base: dict[str, Any], steps: list[dict[str, Any]]) -> None:
    """Write the graph of the generator's base, and describe it and the levels above it in the manifest's entries of stages.

    Args:
        folder: of the bundle, with the generator's graph.
        described: the entries, which are changed.
        base: the map that enters the levels, as the manifest describes it.
        steps: of the levels, see `levels.listed`.
    """
    generator = described["generator"]
    placed = levels.cut(folder / generator["file"], base["shape"], steps)
    generator["levels"] = {"stage": GENERATOR_BASE, "file": f"{generator['file']}.data", "steps": placed}
    described[GENERATOR_BASE] = {
        "file": f"{GENERATOR_BASE}.onnx",
        "precision": generator["precision"],
        "inputs": generator["inputs"],
        "outputs": [base],
    }


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of packages for the manifest."""
    # ONNX Runtime is a module of two packages, one for the CPU and one for GPUs.
    return {package: onnxruntime.__version__ if package == "onnxruntime" else version(package) for package in packages}


def vouch(file: Path) -> dict[str, object]:
    """Return a file's entry in the manifest: its size in bytes and its SHA-256."""
    return {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
