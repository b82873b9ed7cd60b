"""TensorRT engines, built by TensorRT-RTX itself, which needs no GPU for that."""

import importlib
import json
import logging
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from helpers.bundle import save_stage, seal
from helpers.libraries import needs_rtx
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from typer.testing import CliRunner

import dlf.export.bundle
import dlf.export.cli
import dlf.export.memory
import dlf.export.tf32
from dlf.export import engine
from dlf.export.engine import build_engine, parse_size, target_gpus
from dlf.export.fp16 import convert
from dlf.runtime.bundles import builtin
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BackendMissingError, ExportError, InvalidArgumentError
from dlf.runtime.gpu import driver, tensorrt_library
from dlf.runtime.gpu.engines import DEFAULT_PROFILES, EngineCache, Size, build_command, engine_key

STAGES = ("analysis", "synthesis", "adaptor", "generator")
GPUS = ("sm_89", "sm_120")
KODAK = Size(1, 2, 3)

runner = CliRunner()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    """An empty cache, which is also the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return EngineCache()


def in_fp16(bundle: Path, stage: str, folder: Path) -> Path:
    """A bundle with one stage of another, converted to fp16."""
    folder.mkdir()
    described = json.loads((bundle / "manifest.json").read_bytes())["stages"][stage]
    convert(bundle / described["file"], folder / described["file"], ())
    shutil.copy(bundle / "entropy.bin", folder)
    described.pop("levels", None)  # above a stage that is not there; an engine is of the whole graph
    seal(folder, stages={stage: {**described, "precision": "fp16"}})
    return folder


def check_engines(path: Path, stage: str, cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
    """Build a stage for two architectures: nothing to warn of, one engine each, and in the types that its precision says."""
    from polygraphy.logger import G_LOGGER

    bundle = Bundle(path)
    for gpu in GPUS:
        G_LOGGER.once_logged.clear()  # else it tells each warning once a process
        built = build_engine(bundle, stage, gpu, cache=cache)
        assert cache.find(engine_key(bundle, stage, tensorrt_library.load(), gpu), KODAK).engine == built
    assert len(list(cache.engines())) == len(GPUS)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    check_types(bundle, stage)


def check_types(bundle: Bundle, stage: str) -> None:
    """Ask TensorRT itself, without Polygraphy, which types it has understood."""
    rtx = tensorrt_library.load()
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    assert parser.parse_from_file(str(bundle.stage(stage)))
    described = bundle.manifest["stages"][stage]
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    assert [tensor.name for tensor in inputs] == [port["name"] for port in described["inputs"]]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    assert {tensor.dtype for tensor in (*inputs, *outputs)} == {rtx.DataType.FLOAT}
    kinds = (rtx.LayerType.CONVOLUTION, rtx.LayerType.MATRIX_MULTIPLY)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    types = {layer.get_output(0).dtype for layer in layers if layer.type in kinds}
    assert types == {rtx.DataType.HALF if described["precision"] == "fp16" else rtx.DataType.FLOAT}


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("stage", STAGES)
def test_builtin_stage(stage: str, precision: str, tmp_path: Path, cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
    bundle = builtin.path() if precision == "fp32" else in_fp16(builtin.path(), stage, tmp_path / "fp16")
    check_engines(bundle, stage, cache, caplog)


@pytest.fixture
def small(bundle_copy: Path) -> Bundle:
    """The toy bundle with its generator as the only stage, whose engine is built in a second."""
    latent = {"name": "latent", "shape": ["n", 3, "16*h", "16*w"]}
    seal(bundle_copy, stages={"generator": {"file": "generator.onnx", "precision": "fp32", "inputs": [latent]}})
    return Bundle(bundle_copy)


@needs_rtx
def test_engine_is_built_once(small: Bundle, cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build_engine(small, "generator", "sm_89", [KODAK, KODAK])
    assert [profile.max for profile in built.profiles] == [*(profile.max for profile in DEFAULT_PROFILES), KODAK]
    assert built.facts["dlf"] == dlf.__version__

    def forbidden(*_: object) -> None:
        raise AssertionError("built again")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_build", forbidden)
        assert build_engine(small, "generator", "sm_89", [KODAK]) == built
    assert build_engine(small, "generator", "sm_120", [KODAK]).path != built.path
    assert build_engine(small, "generator", "sm_89").path != built.path

    built.path.write_bytes(b"damaged")
    again = build_engine(small, "generator", "sm_89", [KODAK])
    assert again.path == built.path
    assert cache.find(engine_key(small, "generator", tensorrt_library.load(), "sm_89"), KODAK).engine == again


@needs_rtx
def test_an_engine_never_allocates_while_it_runs(small: Bundle, cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is what recording it as a CUDA graph takes."""
    build_engine(small, "generator", "sm_120")  # which tells Polygraphy the library, before it is imported here
    from polygraphy.backend import trt as poly

    rtx, flags = tensorrt_library.load(), {}
    build = poly.engine_bytes_from_network

    def engine_bytes(network: object, configure: Callable[..., Any]) -> Any:
        def watched(builder: Any, network: Any) -> Any:
            config = configure(builder, network)
            flags.update({name: config.get_flag(flag) for name, flag in rtx.BuilderFlag.__members__.items()})
            return config

        return build(network, watched)

    monkeypatch.setattr(poly, "engine_bytes_from_network", engine_bytes)
    build_engine(small, "generator", "sm_89")
    assert flags["REQUIRE_USER_ALLOCATION"]
    assert not flags["TF32"]
    small.manifest["stages"]["generator"]["tf32"] = True
    build_engine(small, "generator", "sm_89")
    assert flags["TF32"]


@pytest.mark.parametrize("tf32", [False, True])
def test_tensorrt_is_asked_for_memory_of_the_size_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tf32: bool) -> None:
    """TensorRT itself builds on a GPU alone; this is what Polygraphy is told for it."""
    import polygraphy.config

    # Which Polygraphy reads when the next is first imported; other tests need it as it is here.
    monkeypatch.setattr(polygraphy.config, "USE_TENSORRT_RTX", tensorrt_library.installed() == tensorrt_library.RTX)
    from polygraphy.backend import trt as poly

    asked: dict[str, Any] = {}
    library = ModuleType("tensorrt")
    library.PreviewFeature = SimpleNamespace(RUNTIME_ACTIVATION_RESIZE_10_10="resize")  # type: ignore[attr-defined]
    monkeypatch.setattr(poly, "network_from_onnx_path", lambda path, strongly_typed: asked.update(strongly_typed=strongly_typed))
    monkeypatch.setattr(poly, "CreateConfig", lambda **options: lambda builder, network: asked.update(options))
    monkeypatch.setattr(poly, "engine_bytes_from_network", lambda network, configure, **options: configure(None, network) or b"")
    image = [{"name": "image", "shape": ["n", 3, "256*h", "256*w"]}]
    engine._build(library, tmp_path / "a.onnx", image, "sm_90 a GPU", DEFAULT_PROFILES, tmp_path / "a.timings", tf32)
    assert asked["strongly_typed"]
    assert (asked["preview_features"], asked["tf32"]) == (["resize"], tf32)
    assert [profile["image"].max for profile in asked["profiles"]] == [(1, 3, 2048, 2048), (16, 3, 768, 768)]


@needs_rtx
def test_graph_that_tensorrt_does_not_know_is_refused(small: Bundle, cache: EngineCache) -> None:
    ports = {"latent": ["n", 3, "h", "h"]}, {"image": ["n", 3]}
    save_stage(small.path / "generator.onnx", [helper.make_node("Det", ["latent"], ["image"])], *ports)
    seal(small.path, stages=small.manifest["stages"])
    with pytest.raises(ExportError, match=r"generator\.onnx: TensorRT-RTX \d.* builds no engine for sm_89 of it: .*Det"):
        build_engine(Bundle(small.path), "generator", "sm_89")
    assert not list(cache.folder.glob("*.engine"))


@needs_rtx
def test_file_that_is_no_graph_is_refused(small: Bundle, cache: EngineCache) -> None:
    (small.path / "generator.onnx").write_bytes(b"not a graph")
    seal(small.path, stages=small.manifest["stages"])
    with pytest.raises(ExportError, match=r"generator\.onnx: TensorRT-RTX .* builds no engine"):
        build_engine(Bundle(small.path), "generator", "sm_89")
    assert not list(cache.folder.glob("*.engine"))


@needs_rtx
def test_missing_polygraphy_says_what_to_install(small: Bundle, cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polygraphy", None)
    monkeypatch.delitem(sys.modules, "polygraphy.config", raising=False)
    with pytest.raises(BackendMissingError, match="pip install polygraphy onnx"):
        build_engine(small, "generator", "sm_89")


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT in the place of TensorRT-RTX; it only builds where it runs."""
    module = ModuleType("tensorrt")
    module.__version__ = "11.0"
    monkeypatch.setattr(tensorrt_library, "load", lambda: module)


def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "describe", lambda: driver.GPU((8, 9), "NVIDIA L4"))


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "describe", lambda: None)


@needs_rtx
def test_rtx_builds_for_any_gpu_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    assert target_gpus(["sm_89", "sm_120", "sm_89"]) == ["sm_89", "sm_120"]
    with pytest.raises(InvalidArgumentError, match=r"builds for sm_75, .*, not for sm_52"):
        target_gpus(["sm_52"])
    with_gpu(monkeypatch)
    assert target_gpus() == ["sm_89"]


@pytest.mark.usefixtures("tensorrt")
def test_tensorrt_builds_for_the_gpu_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch)
    for names in ([], ["sm_89"], ["sm_89 NVIDIA L4"]):
        assert target_gpus(names) == ["sm_89 NVIDIA L4"]
    with pytest.raises(InvalidArgumentError, match=r"runs on \(sm_89 NVIDIA L4\), not for sm_90"):
        target_gpus(["sm_90"])
    without_gpu(monkeypatch)
    with pytest.raises(InvalidArgumentError, match=r"runs on \(there is none\), not for sm_90"):
        target_gpus(["sm_90"])


@pytest.mark.usefixtures("tensorrt")
def test_without_a_gpu_one_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    with pytest.raises(InvalidArgumentError, match="no NVIDIA GPU here; name"):
        target_gpus()


def test_sizes_are_whole_tiles() -> None:
    assert parse_size("768x512") == Size(1, 2, 3)
    assert parse_size("769x1x8") == Size(8, 1, 4)


@given(st.builds(Size, st.integers(1, 999), st.integers(1, 300), st.integers(9, 300)))
def test_command_of_the_runtime_is_understood(size: Size) -> None:
    command = build_command(Bundle(builtin.path()), "sm_89", size)
    assert command[:3][1:] == ["-m", engine.__name__]
    assert parse_size(command[command.index("--size") + 1]) == size


@pytest.mark.parametrize(
    "text", ["", "768", "768x", "0x512", "768x0", "-1x512", "768x512x0", "768x512x8x8", "768 x 512", "1e3x512"]
)
def test_size_of_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is not a size"):
        parse_size(text)


@needs_rtx
def test_command_fills_the_cache(small: Bundle, cache: EngineCache) -> None:
    arguments = build_command(small, "sm_89", Size(1, 9, 9), "generator")[3:]
    result = runner.invoke(engine.app, arguments)
    assert result.exit_code == 0, result.output
    [built] = cache.engines()
    assert str(built.path) in result.output
    assert built.key == engine_key(small, "generator", tensorrt_library.load(), "sm_89")
    assert cache.find(built.key, Size(1, 9, 9)).engine == built
    assert cache.find(replace(built.key, gpu="sm_120"), Size(1, 9, 9)).engine is None


@needs_rtx
def test_command_refuses(small: Bundle, tmp_path: Path, cache: EngineCache) -> None:
    wrong_usage = (["--size", "3x"], "is not a size"), (["--gpu", "sm_1"], "not for sm_1")
    for arguments, reason in wrong_usage:
        result = runner.invoke(engine.app, [str(small.path), *arguments])
        assert result.exit_code == 2 and reason in result.output
    foreign = runner.invoke(engine.app, [str(tmp_path / "absent"), "--gpu", "sm_89"])
    assert foreign.exit_code == 1 and "is not a bundle" in foreign.output
    unknown = runner.invoke(engine.app, [str(small.path), "--gpu", "sm_89", "--stage", "encoder"])
    assert unknown.exit_code == 1 and "names no stage 'encoder'" in unknown.output
    cache.folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(cache.folder, ignore_errors=True)
    cache.folder.write_bytes(b"")  # a file where the folder should be
    unwritable = runner.invoke(engine.app, [str(small.path), "--gpu", "sm_89", "--stage", "generator"])
    assert unwritable.exit_code == 1 and str(cache.folder) in unwritable.output


@needs_rtx
def test_export_builds_engines_when_told(tmp_path: Path, cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def write(model: object, output: Path, *_: object, **__: object) -> None:
        shutil.copytree(builtin.path(), output)

    monkeypatch.setattr(importlib.import_module("dlf.export.checkpoint"), "load_checkpoint", lambda path: None)
    monkeypatch.setattr(dlf.export.bundle, "write_bundle", write)
    monkeypatch.setattr(dlf.export.memory, "record", lambda bundle, progress: None)  # it takes a minute
    monkeypatch.setattr(dlf.export.tf32, "measure", lambda folder, photographs, progress: None)
    monkeypatch.setattr(dlf.export.cli, "build_engines", lambda bundle, gpus, console: asked.append((str(bundle.path), gpus)))

    def export(name: str, *options: str) -> int:
        result = runner.invoke(dlf.export.cli.app, ["model.ckpt", "-o", str(tmp_path / name), *options])
        return result.exit_code

    assert export("both", "--engine", "--gpu", "sm_89", "--gpu", "sm_120") == 0
    assert export("none") == 0
    assert asked == [(str(tmp_path / "both"), ["sm_89", "sm_120"]), (str(tmp_path / "none"), [])]
    assert export("unknown", "--engine", "--gpu", "sm_1") == 2
    assert export("misused", "--gpu", "sm_89") == 2
    assert not (tmp_path / "unknown").exists() and not (tmp_path / "misused").exists()

    def fail(*_: object) -> None:
        raise ExportError("no engine")

    monkeypatch.setattr(dlf.export.cli, "build_engines", fail)
    assert export("half", "--engine", "--gpu", "sm_89") == 1
    assert Bundle(tmp_path / "half").name == "built-in"
