"""Write what a web page loads of a bundle: weights in 8 bits, and nothing that only libdlf and `dlf doctor` use."""

import json
import shutil
from pathlib import Path

from dlf.export.convert import INT8_WEIGHTS
from dlf.export.convert import convert_bundle as convert
from dlf.export.output_folder import workplace, writing
from dlf.export.parity import load_photographs
from dlf.export.progress import UNSEEN, Progress
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.formats import STAGES


def convert_bundle(source: Path, output: Path, photographs: Path | None = None, progress: Progress = UNSEEN) -> None:
    """Write the bundle `source` as pages load it to `output`, whole or not at all. Every reader of bundles opens it.

    The weights of an fp32 bundle are stored in 8 bits, which is measured on `photographs`, a folder, by default scikit-learn's.
    A bundle of lower precision stays in it. `progress` is told as by `convert_bundle`.

    Raises:
        ExportError: a bar fails even with all weights that affect it as they were; or `output` cannot be written.
        BundleForeignError, BundleBrokenError: `source` cannot be used.
    """
    if Bundle(source).precision != "fp32":
        _pick(source, output)
        return
    with workplace(output) as place:
        convert(source, place / "converted", INT8_WEIGHTS, load_photographs(photographs), progress=progress)
        _pick(place / "converted", output)


def _pick(source: Path, output: Path) -> None:
    """Copy the stages' whole graphs with their weights, and the entropy model."""
    manifest = Bundle(source).manifest
    manifest["stages"] = {stage: manifest["stages"][stage] for stage in STAGES}
    manifest["stages"]["generator"].pop("levels", None)
    manifest.pop("memory", None)
    names = ["entropy.bin", *(f"{manifest['stages'][stage]['file']}{data}" for stage in STAGES for data in ("", ".data"))]
    manifest["files"] = {name: manifest["files"][name] for name in names if name in manifest["files"]}
    with writing(output, sum(file["bytes"] for file in manifest["files"].values())) as folder:
        for name in manifest["files"]:
            shutil.copyfile(source / name, folder / name)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
