"""The cut of the generator: both graphs and the list of levels have the model's weights, in one file, however they are stored."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers.export import in_int8, tiny_model
from numpy.typing import NDArray

import dlf.export.bundle
from dlf.export import levels, stages
from dlf.export.bundle import _check_levels, cut_generator
from dlf.export.stages import Sample, export_stage
from dlf.runtime.backends.choice import open_backend
from dlf.runtime.bundles.bundle import Bundle, file_sha256
from dlf.runtime.errors import ExportError
from dlf.runtime.stages import load

pytestmark = pytest.mark.filterwarnings("ignore")


def manifest_of(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    return found


def stored(bundle: Path, entry: dict[str, Any]) -> NDArray[Any]:
    """A tensor of the list, read from the file of weights."""
    data = (bundle / "generator.onnx.data").read_bytes()
    values = np.frombuffer(data, entry["dtype"], int(np.prod(entry["shape"])), entry["offset"])
    return values.reshape(entry["shape"])


def test_list_names_the_models_own_tensors(tiny_bundle: Path) -> None:
    steps = manifest_of(tiny_bundle)["stages"]["generator"]["levels"]["steps"]
    state = tiny_model().state_dict()
    named = {entry["name"]: entry for step in steps for entry in step.values() if isinstance(entry, dict)}
    widths = {"up.4.upsample.conv.weight", "up.2.block.0.nin_shortcut.weight", "up.0.block.0.norm1.bias", "conv_out.weight"}
    assert {f"model.vqgan.decoder.{name}" for name in widths} <= set(named)
    for name, entry in named.items():
        if entry["shape"][2:] != [4, 4]:  # which are sums of the model's
            np.testing.assert_array_equal(stored(tiny_bundle, entry), state[name.removeprefix("model.")].numpy())
    kinds = [step["kind"] for step in steps]
    assert kinds.count("upsample") == 4
    assert kinds.count("first") == kinds.count("second") == 4 * 3
    assert kinds.count("shortcut") == 1
    assert kinds[-1] == "output"


def test_weights_are_stored_once(tiny_bundle: Path) -> None:
    places = {}
    for name in ("generator", "generator_base"):
        graph = onnx.load(tiny_bundle / f"{name}.onnx", load_external_data=False).graph
        for tensor in graph.initializer:
            if tensor.external_data:
                entry = {each.key: each.value for each in tensor.external_data}
                assert entry["location"] == "generator.onnx.data"
                places[int(entry["offset"])] = int(entry["length"])
        assert any("up.0" in tensor.name for tensor in graph.initializer) == (name == "generator")
    size = (tiny_bundle / "generator.onnx.data").stat().st_size
    assert size - 64 * len(places) <= sum(places.values()) <= size


def image_of(bundle: Path, latent: NDArray[np.float32], *, on_cpu: bool, backend: str) -> NDArray[np.float32]:
    opened = open_backend(backend, 1)
    opened.on_cpu = on_cpu
    return load(opened, Bundle(bundle), "generator")({"latent": latent})["image"]


@torch.no_grad()
def test_both_ways_to_the_image_are_equal(tiny_bundle: Path, backend: str) -> None:
    latent = np.random.default_rng(0).standard_normal((2, 8, 16, 32)).astype(np.float32)
    expected = tiny_model().double().generator(torch.from_numpy(latent).double()).numpy()
    for on_cpu in (True, False):
        assert np.abs(image_of(tiny_bundle, latent, on_cpu=on_cpu, backend=backend) - expected).max() <= 1e-4


def sealed(bundle: Path, source: Path, generator: Path, steps: list[dict[str, Any]]) -> Path:
    """A bundle of another generator's graph, cut."""
    manifest = manifest_of(source)
    bundle.mkdir()
    for name in ("entropy.bin", "analysis.onnx"):
        (bundle / name).write_bytes((source / name).read_bytes())
    for file in (generator, generator.with_name(f"{generator.name}.data")):
        (bundle / file.name.replace(generator.name, "generator.onnx")).write_bytes(file.read_bytes())
    model = onnx.load(bundle / "generator.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "generator.onnx.data"
    onnx.save(model, bundle / "generator.onnx")
    (base,) = manifest["stages"]["generator_base"]["outputs"]
    manifest["stages"] = {"generator": {**manifest["stages"]["generator"], "file": "generator.onnx"}}
    cut_generator(bundle, manifest["stages"], base, steps)
    manifest["files"] = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in sorted(bundle.iterdir())
    }
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


def test_int8_graph_is_cut_too(tiny_bundle: Path, tmp_path: Path, backend: str) -> None:
    latent = np.random.default_rng(1).standard_normal((1, 8, 16, 16)).astype(np.float32)
    converted = in_int8(tiny_bundle / "generator.onnx", tmp_path / "int8.onnx", {"latent": latent})
    steps = levels.unplaced(manifest_of(tiny_bundle)["stages"]["generator"]["levels"]["steps"])
    bundle = sealed(tmp_path / "int8", tiny_bundle, converted, steps)
    listed = manifest_of(bundle)["stages"]["generator"]["levels"]["steps"]
    assert {step["weight"]["dtype"] for step in listed} == {"int8", "float32"}
    exact = image_of(tiny_bundle, latent, on_cpu=False, backend=backend)
    errors = [np.linalg.norm(image_of(bundle, latent, on_cpu=on_cpu, backend=backend) - exact) for on_cpu in (True, False)]
    assert errors[0] / np.linalg.norm(exact) > 1e-4
    assert errors[0] < errors[1]  # the maps are not rounded, only weights


def test_half_weights_are_cut_too(tiny_bundle: Path, tmp_path: Path) -> None:
    model = tiny_model()
    for weight in model.parameters():
        weight.copy_(weight.half())
    generator = stages.stages(model.config)[-1]
    path = export_stage(model, generator, tmp_path, half_weights=True)
    bundle = sealed(tmp_path / "half", tiny_bundle, path, levels.listed(model))
    listed = manifest_of(bundle)["stages"]["generator"]["levels"]["steps"]
    assert {step["weight"]["dtype"] for step in listed} == {"float16", "float32"}  # sums of two halves are no halves
    latent = np.random.default_rng(2).standard_normal((1, 8, 16, 16)).astype(np.float32)
    with torch.no_grad():
        expected = model.double().generator(torch.from_numpy(latent).double()).numpy()
    for on_cpu in (True, False):
        assert np.abs(image_of(bundle, latent, on_cpu=on_cpu, backend="onnxruntime") - expected).max() <= 1e-4


def test_list_that_gives_another_image_is_refused(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle(tiny_bundle)
    if bundle.levels(None) is None:
        pytest.skip("libdlf has no kernels of levels for this processor")
    latent = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        image = tiny_model().generator(latent)
    _check_levels(bundle, [Sample((1, 1, 1), (latent,), (image,))])
    with pytest.raises(ExportError, match="libdlf's levels give an image"):
        _check_levels(bundle, [Sample((1, 1, 1), (latent,), (image + 1e-3,))])


def test_levels_that_cannot_be_computed_here_are_not_checked(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLF_ISA", "scalar")
    monkeypatch.setattr(dlf.export.bundle, "load", None)
    _check_levels(Bundle(tiny_bundle), [])
