"""Writing bundles: their content, and that a refused export leaves no files."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from helpers.export import TINY, tiny_model

import dlf.export.bundle
from dlf.export.bundle import write_bundle
from dlf.export.stages import PARITY, stages
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import ExportError


def test_manifest_vouches_for_every_file(tiny_bundle: Path) -> None:
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert {file.name for file in tiny_bundle.iterdir()} == {"manifest.json", *manifest["files"]}
    for name, entry in manifest["files"].items():
        content = (tiny_bundle / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert manifest["fingerprint"] == hashlib.sha256((tiny_bundle / "entropy.bin").read_bytes()).hexdigest()[:4]
    assert manifest["model"]["config"]["detail_channels"] == TINY.detail_channels


def test_manifest_describes_the_stages(tiny_bundle: Path) -> None:
    described = json.loads((tiny_bundle / "manifest.json").read_text())["stages"]
    assert list(described) == ["analysis", "synthesis", "adaptor", "generator", "generator_base"]
    for stage in stages(TINY):
        entry = described[stage.name]
        assert entry["inputs"] == [port.describe() for port in stage.inputs]
        assert entry["outputs"] == [port.describe() for port in stage.outputs]
        for run in entry["parity"]:
            assert all(0 < run[port.name] <= PARITY for port in stage.outputs)


def test_runtime_reads_it(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    assert bundle.name == "tiny"
    for stage in stages(TINY):
        assert bundle.stage(stage.name).is_file()


def test_refused_export_writes_nothing(tmp_path: Path) -> None:
    model = tiny_model()
    torch.nn.init.constant_(model.hybrid_codec.quantize_feat.y_spatial_prior[0].block[1].conv.weight, 100.0)
    with pytest.raises(ExportError):
        write_bundle(model, tmp_path / "bundle", "broken")
    assert list(tmp_path.iterdir()) == []


def test_refuses_an_integer_prior_that_costs_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlf.export.bundle, "MAX_PRIOR_COST", -0.5)
    monkeypatch.setattr(dlf.export.bundle, "PARITY_SIZES", ((1, 1, 1),))
    with pytest.raises(ExportError, match="the integer prior codes"):
        write_bundle(tiny_model(), tmp_path / "bundle", "costly")
    assert list(tmp_path.iterdir()) == []
