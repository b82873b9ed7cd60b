"""The gate for TF32: whether an fp32 bundle may be computed in TF32 on a GPU, which is several times as fast there.

In TF32 a tensor core rounds both factors of a product to 11 significant bits and sums in fp32. Here the factors are rounded by
Veltkamp's splitting: with c = 2^13 x + x, c - (c - x) is x rounded to 24 - 13 bits. With it the bundle must pass fp16's bars.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import NodeProto, helper, numpy_helper

from dlf.export import manifest
from dlf.export.convert import numbers
from dlf.export.fp16 import LAYERS
from dlf.export.parity import Bars, Gate
from dlf.export.progress import UNSEEN, Progress, tiles_of
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.formats import DECODER_STAGES, STAGES
from dlf.runtime.images import Pixels

log = logging.getLogger(__name__)

_FACTOR = "tf32 factor"


def measure(folder: Path, photographs: Sequence[Pixels], bars: Bars | None = None, progress: Progress = UNSEEN) -> bool:
    """Compare an fp32 bundle with itself in TF32, and write the result into its manifest; return whether it passed.

    Each stage's entry receives `tf32`, and the manifest `tf32_against_fp32`, the figures of the photographs.

    Raises ExportError: the gate cannot be measured.
    """
    bars = bars or Bars()
    bundle = Bundle(folder)
    emulated = {name: folder / f"{name}.emulated.onnx" for name in STAGES}
    try:
        for name, path in emulated.items():
            emulate(bundle.stage(name), path)
        progress("photographs in fp32")
        progress.expect((2 * len(STAGES) + len(DECODER_STAGES)) * sum(map(tiles_of, photographs)))  # and once more
        gate = Gate(folder, photographs, torch.get_num_threads(), progress)
        progress("photographs in TF32")
        figures = gate.compare(emulated)
    finally:
        for path in emulated.values():
            path.unlink(missing_ok=True)
    failed = bars.failures(figures)
    if failed:
        log.warning("TF32 is not allowed: the bars %s are not reached", ", ".join(failed))
    content = {
        **bundle.manifest,
        "tf32_against_fp32": {"bars": asdict(bars), "photographs": [numbers(each) for each in figures]},
    }
    content["stages"] = {name: {**entry, "tf32": not failed} for name, entry in content["stages"].items()}
    manifest.write(folder, content)
    return not failed


def emulate(source: Path, target: Path) -> None:
    """Write the graph `source` with rounded factors to `target`, in the same folder; both use the same weight files."""
    assert source.parent == target.parent
    model = onnx.load(source, load_external_data=False)
    graph = model.graph
    rounded: set[str] = set()
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type in LAYERS:
            for at in (0, 1):
                name = node.input[at]
                if name not in rounded:
                    nodes += _round(name)
                    rounded.add(name)
                node.input[at] = f"{name} rounded"
        nodes.append(node)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    graph.initializer.append(numpy_helper.from_array(np.array(2**13 + 1, np.float32), _FACTOR))
    onnx.save(model, target)


def _round(name: str) -> list[NodeProto]:
    large, rest = f"{name} times", f"{name} rest"
    return [
        helper.make_node("Mul", [name, _FACTOR], [large]),
        helper.make_node("Sub", [large, name], [rest]),
        helper.make_node("Sub", [large, rest], [f"{name} rounded"]),
    ]
