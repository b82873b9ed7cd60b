"""Convert an fp32 bundle to a lower precision, measure it, return to fp32 the layers that cost too much, and write it.

The entropy model is copied unchanged, so each bundle decodes the files of the other.
"""

import json
import logging
import math
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from dlf.export import emulation, levels
from dlf.export.bundle import cut_generator, versions, vouch
from dlf.export.fewest import fewest, trials
from dlf.export.fp16 import LAYERS, MOVEMENT, Converter
from dlf.export.output_folder import writing
from dlf.export.parity import Bars, Gate, StageFigures
from dlf.export.progress import UNSEEN, Progress, tiles_of
from dlf.runtime.bundles import references
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import ExportError
from dlf.runtime.formats import DECODER_STAGES, ENCODER_STAGES, STAGES
from dlf.runtime.images import Pixels

log = logging.getLogger(__name__)

# A target beside the precisions: only the weights are stored in int8, and stages compute in fp32.
INT8_WEIGHTS = "int8-weights"
# The module that prepares a target's converter, and the bars that its bundles must keep to.
TARGETS: dict[str, tuple[str, Bars]] = {
    "fp16": ("dlf.export.fp16", Bars()),
    "int8": ("dlf.export.int8", Bars(headroom=0, psnr=0, tokens=1, bytes=0.02, lpips=0.005)),  # tokens are counted only
    INT8_WEIGHTS: ("dlf.export.int8_weights", Bars(headroom=0)),
}
# Those that processors compute in: only their bundles list the generator's levels, which others compute with the whole graph.
LISTING_LEVELS = {"int8"}
# Stages that a comparison computes, where those of fp32's inputs are known: to decode fp32's files, and to decode its own.
COMPARED = 2 + 3
# The output of the analysis that alone decides what a bar measures.
OUTPUT_OF = {"tokens": "z", "bytes": "y"}
# Into how many runs of layers a stage is cut to find which of them disturb the picture most.
RUNS = 8
# How many of a stage's tensors the manifest names, those closest to overflow.
TENSORS_NAMED = 5


def convert_bundle(
    source: Path,
    output: Path,
    target: str,
    photographs: Sequence[Pixels],
    *,
    calibration: Sequence[Pixels] | None = None,
    bars: Bars | None = None,
    progress: Progress = UNSEEN,
) -> None:
    """Convert the fp32 bundle `source` to `target` and write it to `output`, whole or not at all.

    `target` is a precision, or `INT8_WEIGHTS`. The gate measures on `photographs`. The scales of int8 are computed from
    `calibration`, by default the same photographs. `bars` are by default those of the target.
    `progress` is told of each step, and of the tiles that stages compute.

    Raises:
        ExportError: `source` is not an fp32 bundle, or a bar fails even with all layers that affect it in fp32; nothing
            is written; or `output` cannot be written.
        BundleForeignError, BundleBrokenError: `source` cannot be used.
    """
    bundle = Bundle(source)
    if bundle.precision != "fp32":
        raise ExportError(f"{source} is in {bundle.precision}; convert the fp32 bundle that it was made from")
    module, usual = TARGETS[target]
    bars = bars or usual
    size = sum(file.stat().st_size for file in source.iterdir()) // 2  # int8 takes less, unless stages return to fp32
    with writing(output, size) as folder:
        tiles = sum(map(tiles_of, photographs))
        progress.expect(len(STAGES) * (2 * tiles + 2 * sum(map(tiles_of, calibration or ()))) + COMPARED * tiles)
        progress("photographs in fp32")
        gate = Gate(source, photographs, torch.get_num_threads(), progress)
        progress(f"preparing {target}")
        converter: Converter = import_module(module).prepare(source, calibration or photographs, progress)
        stages = {name: _Stage(name, bundle.stage(name), folder, converter) for name in STAGES}
        for stage in stages.values():
            progress(f"stage {stage.name}")
            _make_room(stage, gate, bars)
        progress(f"photographs in {target}")
        figures = _reach_bars(stages, gate, bars, progress)
        for stage in stages.values():
            stage.emulated.unlink()
        copied = [name for name in ("entropy.bin", references.NAME) if name in bundle.manifest["files"]]
        for name in copied:
            shutil.copyfile(source / name, folder / name)
        (folder / "manifest.json").write_text(
            json.dumps(_manifest(bundle, folder, target, stages, bars, figures), indent=1) + "\n"
        )


class _Stage:
    """A stage while it is being converted, with the nodes that were returned to fp32."""

    def __init__(self, name: str, source: Path, folder: Path, converter: Converter) -> None:
        self.name = name
        self.kept: set[str] = set()
        self.figures: StageFigures | None = None
        self.emulated = folder / f"{name}.emulated.onnx"
        self._source, self._target, self._converter = source, folder / f"{name}.onnx", converter
        graph = onnx.load(source, load_external_data=False).graph
        self._order = [node.name for node in graph.node]
        self._layers = [node.name for node in graph.node if node.op_type in LAYERS]
        self._written: set[str] | None = None

    @property
    def layers(self) -> list[str]:
        """The layers that are not in fp32."""
        return [layer for layer in self._layers if layer not in self.kept]

    @property
    def fp32_nodes(self) -> list[str]:
        """The nodes that were returned to fp32, in the order of the graph."""
        return [name for name in self._order if name in self.kept]

    @property
    def runs(self) -> list[list[str]]:
        """The layers that are not in fp32, in runs of neighbours, `RUNS` if there are as many layers."""
        return [[str(layer) for layer in run] for run in np.array_split(self.layers, min(RUNS, len(self.layers)))]

    def convert(self, gate: Gate) -> StageFigures:
        """Write the stage and measure it."""
        self.write(self.kept)
        self.figures = gate.measure(self.name, self.emulated)
        log.info("%s: error %s, %d nodes back in fp32", self.name, self.figures.error, len(self.kept))
        return self.figures

    def write(self, kept: set[str]) -> None:
        """Write the stage with these nodes in fp32, unless it is written so, and its emulated form."""
        if kept != self._written:
            self._converter(self._source, self._target, kept)
            emulation.emulate(self._target, self.emulated)
            self._written = kept.copy()

    def noise(self, run: Collection[str], gate: Gate) -> dict[str, float]:
        """Write the stage with this run of its layers alone converted, and return the error of each output."""
        self.write(self.kept.union(self._layers).difference(run))
        return gate.measure(self.name, self.emulated, photographs=1).noise

    def keep_overflowing(self, tensors: Collection[str]) -> None:
        """Return to fp32 the nodes that compute these fp16 tensors, or that read them cast from fp32."""
        nodes = onnx.load(self._target, load_external_data=False).graph.node
        producers = {output: node for node in nodes for output in node.output}

        def readers(tensor: str) -> Iterator[str]:
            for node in nodes:
                if tensor in node.input:
                    yield node.name
                    if node.op_type in MOVEMENT:
                        yield from readers(node.output[0])

        before = len(self.kept)
        for tensor in tensors:
            producer = producers[tensor]
            self.kept.update(readers(tensor) if producer.op_type == "Cast" else [producer.name])
        if len(self.kept) == before:
            raise ExportError(f"stage {self.name}: {', '.join(tensors)} leave fp16's range, no other node can return to fp32")


def _make_room(stage: _Stage, gate: Gate, bars: Bars) -> None:
    """Convert a stage, and return to fp32 the nodes whose values come too close to fp16's largest number."""
    while True:
        headroom = stage.convert(gate).headroom
        tight = [tensor for tensor, room in headroom.items() if 0 < room < bars.headroom]
        # After a tensor that overflows, others may be infinite or NaN too; only the first is the cause.
        tight = tight or [tensor for tensor, room in headroom.items() if not room > 0][:1]
        if not tight:
            return
        stage.keep_overflowing(tight)
        log.warning("stage %s: back to fp32 for want of range: %s", stage.name, ", ".join(tight))


def _reach_bars(stages: dict[str, _Stage], gate: Gate, bars: Bars, progress: Progress) -> list[dict[str, float]]:
    """Return layers to fp32 until the photographs pass the bars. Returns their figures.

    The decoder comes first, by what it makes of fp32's files: what it fails by itself, no layer of the encoder mends. Once it
    passes, the encoder is the likely cause of what is left.
    """
    emulated = {name: stage.emulated for name, stage in stages.items()}

    def decoder_failures() -> list[str]:
        return bars.decoder_failures(gate.compare_decoder(emulated))

    def failures() -> list[str]:
        return bars.failures(gate.compare(emulated))

    def return_layers(failed: Collection[str], names: Sequence[str], passes: Callable[[], bool], work: int) -> None:
        blamed = [stages[name] for name in names if stages[name].layers]
        if blamed:
            progress(f"{', '.join(failed)} not reached; layers of {', '.join(s.name for s in blamed)} are returned to fp32")
            _return_fewest(blamed, gate, failed, passes, work, progress)
            left = ", ".join(f"{stage.name} {len(stage.layers)}" for stage in blamed)
            log.warning("%s not reached: layers that are left of the stages: %s", ", ".join(failed), left)

    if failed := decoder_failures():
        return_layers(failed, DECODER_STAGES, lambda: not decoder_failures(), len(DECODER_STAGES))
    if failed := failures():
        return_layers(failed, ENCODER_STAGES, lambda: not failures(), len(STAGES))
    if (failed := failures()) == ["lpips"]:
        return_layers(failed, DECODER_STAGES, lambda: not failures(), 2 * len(DECODER_STAGES))
    figures = gate.compare(emulated)
    if failed := bars.failures(figures):
        raise ExportError(f"the bars {', '.join(failed)} are not reached, even with the stages that matter in fp32: {figures}")
    return figures


def _return_fewest(
    blamed: Sequence[_Stage], gate: Gate, failed: Collection[str], passes: Callable[[], bool], work: int, progress: Progress
) -> None:
    """Return to fp32 the fewest runs of layers of these stages with which the gate `passes`, the worst first; or all.

    `failed` are the bars that it does not pass without, and `work` is how many stages it computes at most.
    """
    tiles, runs = sum(gate.tiles), sum(len(stage.runs) for stage in blamed)
    most = (2 * len(blamed) + work * (trials(runs) + 1)) * tiles + runs * gate.tiles[0]
    with progress.at_most(most):
        before = {stage.name: stage.kept for stage in blamed}

        def keep(chosen: Collection[tuple[_Stage, list[str]]]) -> None:
            for stage in blamed:
                stage.kept = before[stage.name].union(*(run for owner, run in chosen if owner is stage))
                stage.write(stage.kept)

        def enough(chosen: Collection[tuple[_Stage, list[str]]]) -> bool:
            keep(chosen)
            return passes()

        keep(fewest(_worst_first(blamed, gate, failed), enough))
        passes()  # which computes what the figures of all stages are made of
        for stage in blamed:
            stage.convert(gate)


def _worst_first(blamed: Sequence[_Stage], gate: Gate, failed: Collection[str]) -> list[tuple[_Stage, list[str]]]:
    """The runs of layers of these stages, those first that by themselves change most of what the failed bars measure.

    In the analysis that is the worst of the outputs that decide them. In the decoder it is the fp32 bundle's pictures: of the
    squared error that a stage causes in them each run has its share of the squared errors in the stage's worst output, since
    errors of roundings are independent, so that their squares add up.
    """
    deciding = {OUTPUT_OF[bar] for bar in failed if bar in OUTPUT_OF}
    causes = {stage.name: gate.disturbance(stage.name, stage.emulated) for stage in blamed} if len(blamed) > 1 else {}
    found = []
    for stage in blamed:
        runs = stage.runs
        noises = [stage.noise(run, gate) for run in runs]
        squares = [max(noise[name] for name in deciding & noise.keys() or noise) ** 2 for noise in noises]
        scale = causes.get(stage.name, 1.0) / (sum(squares) or 1.0)
        found += [(square * scale, stage, run) for square, run in zip(squares, runs, strict=True)]
    return [(stage, run) for _, stage, run in sorted(found, key=lambda entry: entry[0], reverse=True)]


def _manifest(
    bundle: Bundle, folder: Path, target: str, stages: dict[str, _Stage], bars: Bars, figures: list[dict[str, float]]
) -> dict[str, Any]:
    precision, weights = ("fp32", "int8") if target == INT8_WEIGHTS else (target, target)
    manifest = {**bundle.manifest, "precision": precision, "weights": weights}
    manifest.pop("memory", None)  # which was measured in fp32
    manifest.pop("tf32_against_fp32", None)  # TF32 was not measured together with this precision
    manifest["stages"] = {
        name: {
            **{key: value for key, value in bundle.manifest["stages"][name].items() if key != "tf32"},
            "file": f"{name}.onnx",
            "precision": precision if stage.layers else "fp32",
            "fp32_nodes": stage.fp32_nodes,
            "against_fp32": _describe(stage.figures),
        }
        for name, stage in stages.items()
    }
    fp32_levels = manifest["stages"]["generator"].pop("levels", None)  # which bundles of dlf before 0.2 lack
    if fp32_levels and target in LISTING_LEVELS:
        (base,) = bundle.manifest["stages"][fp32_levels["stage"]]["outputs"]
        cut_generator(folder, manifest["stages"], base, levels.unplaced(fp32_levels["steps"]))
    manifest["against_fp32"] = {"bars": asdict(bars), "photographs": [numbers(each) for each in figures]}
    manifest["files"] = {file.name: vouch(file) for file in sorted(folder.iterdir())}
    manifest["exporter"] = {**bundle.manifest.get("exporter", {}), **versions("dlf", "onnx", "onnxruntime")}
    return manifest


def _describe(figures: StageFigures | None) -> dict[str, Any]:
    assert figures is not None
    narrowest = sorted(figures.headroom.items(), key=lambda item: item[1])[:TENSORS_NAMED]
    return {"error": numbers(figures.error), "headroom": numbers(dict(narrowest))}


def numbers(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Round to four digits; infinity becomes None, because JSON cannot write it."""
    return {name: float(f"{value:.4g}") if math.isfinite(value) else None for name, value in figures.items()}
