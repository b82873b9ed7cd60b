"""The gate for TF32: what is rounded, what is written into the manifest, and what follows from it."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.bundle import save_stage
from helpers.parity import named_copy
from onnx import helper

from dlf.export import emulation, tf32
from dlf.export.convert import convert_bundle
from dlf.export.parity import Bars
from dlf.runtime import images
from dlf.runtime.bundles.bundle import Bundle

pytestmark = pytest.mark.usefixtures("no_lpips")
LOOSE = Bars(tokens=1, bytes=1, lpips=1)


@pytest.fixture
def bundle(toy_bundle: Path, tmp_path: Path) -> Path:
    return named_copy(toy_bundle, tmp_path / "bundle")


@pytest.fixture(scope="module")
def photographs() -> list[images.Pixels]:
    return [np.random.default_rng(5).integers(0, 256, (256, 300, 3), dtype=np.uint8)]


def test_both_factors_of_a_product_are_rounded_to_11_bits_and_summed_in_fp32(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(2000, 1)) * 10.0 ** rng.integers(-20, 20, (2000, 1))).astype(np.float32)
    ports = {"x": ["n", 1]}, {"y": ["n", 1]}
    save_stage(tmp_path / "s.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], *ports, w=np.ones((1, 1), np.float32))
    tf32.emulate(tmp_path / "s.onnx", tmp_path / "t.onnx")
    (got,) = emulation.load(tmp_path / "t.onnx", 1)({"x": x})[0].values()
    assert not np.any(got.view(np.uint32) & 0x1FFF)  # the lower 13 of 24 bits
    assert np.all(np.abs(got.astype(np.float64) - x) <= np.abs(x.astype(np.float64)) * 2**-11)


def test_weights_are_rounded_too_and_other_operators_are_not(tmp_path: Path) -> None:
    fine = np.float32(1 + 2**-12)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["product"]), helper.make_node("Add", ["product", "x"], ["y"])]
    save_stage(tmp_path / "s.onnx", nodes, {"x": ["n", 1]}, {"y": ["n", 1]}, w=np.full((1, 1), 3 * fine))
    tf32.emulate(tmp_path / "s.onnx", tmp_path / "t.onnx")
    (got,) = emulation.load(tmp_path / "t.onnx", 1)({"x": np.full((1, 1), fine)})[0].values()
    assert got[0, 0] == np.float32(3 + fine)


def manifest_of(bundle: Path) -> dict[str, dict[str, dict[str, object]]]:
    content: dict[str, dict[str, dict[str, object]]] = json.loads((bundle / "manifest.json").read_text())
    return content


def test_a_bundle_that_passes_says_so(bundle: Path, photographs: list[images.Pixels]) -> None:
    files = sorted(bundle.iterdir())
    assert not Bundle(bundle).allows_tf32("analysis")
    assert tf32.measure(bundle, photographs, LOOSE)
    assert sorted(bundle.iterdir()) == files
    assert all(Bundle(bundle).allows_tf32(stage) for stage in manifest_of(bundle)["stages"])
    (figures,) = manifest_of(bundle)["tf32_against_fp32"]["photographs"]
    assert figures["width"] == 300
    assert figures["psnr"] is None or figures["psnr"] > 45


def test_a_bundle_that_fails_says_so(bundle: Path, photographs: list[images.Pixels]) -> None:
    assert not tf32.measure(bundle, photographs, Bars(tokens=-1))
    assert not any(Bundle(bundle).allows_tf32(stage) for stage in manifest_of(bundle)["stages"])


def test_it_is_not_inherited_by_a_lower_precision(bundle: Path, tmp_path: Path, photographs: list[images.Pixels]) -> None:
    """Which was measured without it."""
    tf32.measure(bundle, photographs, LOOSE)
    convert_bundle(bundle, tmp_path / "fp16", "fp16", photographs, bars=LOOSE)
    assert "tf32" not in manifest_of(tmp_path / "fp16")["stages"]["analysis"]
    assert "tf32_against_fp32" not in manifest_of(tmp_path / "fp16")
