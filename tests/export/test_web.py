"""Bundles for web pages: weights in 8 bits compared with NumPy, what is written, and that the native codec reads it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.bundle import LoneStage, save_stage
from onnx import helper, numpy_helper
from typer.testing import CliRunner

import dlf
from dlf.export import convert, int8_weights, parity, web
from dlf.export.cli import app
from dlf.export.parity import Bars
from dlf.runtime.backends.choice import open_backend
from dlf.runtime.bundles.bundle import Bundle

PHOTO = np.random.default_rng(5).integers(0, 256, (256, 256, 3), np.uint8)
WEIGHTS = {"MatMul": (48, 40), "Conv": (40, 48, 3, 3), "ConvTranspose": (48, 40, 2, 2)}


@pytest.fixture
def photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "load_photographs", lambda folder: [PHOTO])
    loose = Bars(headroom=0, psnr=0, tokens=1, bytes=1, lpips=1)
    monkeypatch.setitem(convert.TARGETS, convert.INT8_WEIGHTS, ("dlf.export.int8_weights", loose))


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("half", [False, True])
def test_weights_are_rounded_to_255_levels_of_each_output_channel(tmp_path: Path, kind: str, half: bool, backend: str) -> None:
    source, target = tmp_path / "s.onnx", tmp_path / "t.onnx"
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=WEIGHTS[kind]) * rng.uniform(0.1, 10, WEIGHTS[kind])).astype(np.float16).astype(np.float32)
    nodes = [helper.make_node(kind, ["a", "weight"], ["b"], "product")]
    if half:
        nodes.insert(0, helper.make_node("Cast", ["weight.half"], ["weight"], "cast", to=onnx.TensorProto.FLOAT))
    stored = {"weight.half": weight.astype(np.float16)} if half else {"weight": weight}
    ports = (["n", "r", 48], ["n", "r", 40]) if kind == "MatMul" else (["n", 48, "h", "w"], ["n", 40, "h2", "w2"])
    save_stage(source, nodes, {"a": ports[0]}, {"b": ports[1]}, **stored)
    int8_weights.convert(source, target, ())
    kept = {tensor.name: numpy_helper.to_array(tensor, str(tmp_path)) for tensor in onnx.load(target).graph.initializer}
    assert set(kept) == {"weight.int8", "weight.scale"} and kept["weight.int8"].dtype == np.int8
    restored = kept["weight.int8"] * kept["weight.scale"]
    axis = {"MatMul": 1, "Conv": 0, "ConvTranspose": 1}[kind]
    largest = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis), keepdims=True)
    assert np.all(np.abs(restored - weight) <= largest / 127 * 0.5001)

    a = rng.normal(size=(1, 8, 48) if kind == "MatMul" else (1, 48, 5, 6)).astype(np.float32)
    save_stage(tmp_path / "r.onnx", nodes[-1:], {"a": ports[0]}, {"b": ports[1]}, weight=restored.astype(np.float32))
    found, expected = (
        open_backend(backend, threads=1).load(LoneStage(path), "")({"a": a})["b"] for path in (target, tmp_path / "r.onnx")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def save_tables(source: Path) -> dict[str, np.ndarray]:
    """Write a stage of tables: two that reach a product, one of them through a Slice, and one behind the last product."""
    rng = np.random.default_rng(1)
    tables = {name: rng.normal(size=(16, 8)).astype(np.float32) for name in ("positions", "halves", "last")}
    integers = {"start": np.array([0]), "end": np.array([8]), "indexes": np.eye(2, dtype=np.int64)}
    nodes = [
        helper.make_node("Gather", ["positions", "indexes"], ["places"], "gather"),
        helper.make_node("ReduceMax", ["places"], ["place"], "place", keepdims=0),
        helper.make_node("Add", ["a", "place"], ["placed"], "add"),
        helper.make_node("Slice", ["halves", "start", "end"], ["half"], "slice"),
        helper.make_node("MatMul", ["placed", "half"], ["b"], "product"),
        helper.make_node("Mul", ["b", "gain"], ["c"], "scaled"),
        helper.make_node("Add", ["c", "last"], ["d"], "behind"),
    ]
    save_stage(source, nodes, {"a": [16, 8]}, {"d": [16, 8]}, **tables, **integers, gain=np.ones((1, 8), np.float32))
    return tables


def stored(folder: Path, file: str) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor, str(folder)) for tensor in onnx.load(folder / file).graph.initializer}


def test_tables_that_reach_a_product_are_rounded_to_255_levels_of_each_row(tmp_path: Path) -> None:
    tables = save_tables(tmp_path / "s.onnx")
    int8_weights.convert(tmp_path / "s.onnx", tmp_path / "t.onnx", ())
    kept = stored(tmp_path, "t.onnx")
    assert {"last", "gain", "indexes"} < set(kept) and tables.keys() & kept.keys() == {"last"}
    for name in ("positions", "halves"):
        assert kept[f"{name}.int8"].dtype == np.int8 and kept[f"{name}.scale"].shape == (16, 1)
        largest = np.abs(tables[name]).max(axis=1, keepdims=True)
        assert np.all(np.abs(kept[f"{name}.int8"] * kept[f"{name}.scale"] - tables[name]) <= largest / 127 * 0.5001)


def test_nodes_that_are_kept_keep_their_weight_and_their_tables(tmp_path: Path) -> None:
    save_tables(tmp_path / "s.onnx")
    int8_weights.convert(tmp_path / "s.onnx", tmp_path / "t.onnx", ["product"])
    assert stored(tmp_path, "t.onnx").keys() == stored(tmp_path, "s.onnx").keys()
    product = helper.make_node("MatMul", ["a", "weight"], ["b"], "product")
    save_stage(tmp_path / "p.onnx", [product], {"a": ["n", 8]}, {"b": ["n", 8]}, weight=np.eye(8, dtype=np.float32))
    int8_weights.convert(tmp_path / "p.onnx", tmp_path / "q.onnx", ["product"])
    assert stored(tmp_path, "q.onnx").keys() == {"weight"}


@pytest.mark.usefixtures("photographs", "no_lpips")
def test_a_page_s_bundle_is_small_and_the_native_codec_reads_it(tiny_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "web"
    done = CliRunner().invoke(app, [str(tiny_bundle), "-o", str(output), "--web"])
    assert done.exit_code == 0, done.output
    bundle = Bundle(output)
    assert (bundle.precision, bundle.manifest["weights"], bundle.references()) == ("fp32", "int8", None)
    assert {path.name for path in output.iterdir()} == {*bundle.manifest["files"], "manifest.json"}
    weights = [sum(path.stat().st_size for path in folder.glob("*.data")) for folder in (tiny_bundle, output)]
    assert weights[1] < 0.5 * weights[0]
    whole, small = (dlf.Codec(path, "onnxruntime", threads=1) for path in (tiny_bundle, output))
    file = whole.encode(PHOTO)
    assert parity.psnr(small.decode(file), whole.decode(file)) > 30
    again = CliRunner().invoke(app, [str(output), "-o", str(tmp_path / "again"), "--web"])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again" / "adaptor.onnx.data").read_bytes() == (output / "adaptor.onnx.data").read_bytes()


@pytest.mark.usefixtures("photographs", "no_lpips")
def test_a_bundle_of_lower_precision_stays_in_it(tiny_bundle: Path, tmp_path: Path) -> None:
    loose = Bars(headroom=0, psnr=0, tokens=1, bytes=1, lpips=1)
    convert.convert_bundle(tiny_bundle, tmp_path / "fp16", "fp16", [PHOTO], bars=loose)
    web.convert_bundle(tmp_path / "fp16", tmp_path / "web")
    assert Bundle(tmp_path / "web").precision == "fp16"
    for name in ("analysis", "synthesis", "adaptor", "generator"):
        assert (tmp_path / "web" / f"{name}.onnx").read_bytes() == (tmp_path / "fp16" / f"{name}.onnx").read_bytes()


@pytest.mark.parametrize("option", [["--precision", "int8"], ["--half-weights"], ["--engine"]])
def test_what_contradicts_web_is_refused(tmp_path: Path, option: list[str]) -> None:
    result = CliRunner().invoke(app, ["model.ckpt", "-o", str(tmp_path / "out"), "--web", *option])
    assert result.exit_code == 2
    assert "--web" in result.output
    assert list(tmp_path.iterdir()) == []
