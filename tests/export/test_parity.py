"""The parity gate's figures, compared with codecs that run both bundles and with the formulas."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.bundle import seal
from helpers.entropy import python_detail_steps
from onnx import numpy_helper

import dlf
from dlf.export import emulation, parity
from dlf.export.emulation import emulate
from dlf.export.parity import STAGES, Bars, Gate, load_photographs, psnr
from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime import images
from dlf.runtime.backends.choice import open_backend
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import ExportError

pytestmark = pytest.mark.usefixtures("no_lpips")
GOOD = {"psnr": 45.0, "tokens": 0.01, "bytes": -0.005, "lpips": 0.002}


@pytest.fixture(scope="module")
def photographs() -> list[images.Pixels]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((256, 512), (300, 200))]


@pytest.fixture(scope="module")
def spoilt(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small bundle with a slightly different encoder and decoder."""
    folder = Path(shutil.copytree(toy_bundle, tmp_path_factory.mktemp("spoilt") / "bundle"))
    rng = np.random.default_rng(6)
    for name, weight, scale in (("analysis", "to_z", 0.1), ("analysis", "to_y", 0.3), ("adaptor", "tint", 0.01)):
        model = onnx.load(folder / f"{name}.onnx")
        (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == weight)
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values + rng.normal(0, scale, values.shape).astype(np.float32), weight))
        onnx.save(model, folder / f"{name}.onnx")
    (folder / "analysis.onnx.data").unlink(missing_ok=True)
    seal(folder)
    return folder


def emulated(bundle: Path) -> dict[str, Path]:
    for name in STAGES:
        emulate(bundle / f"{name}.onnx", bundle / f"{name}.emulated.onnx")
    return {name: bundle / f"{name}.emulated.onnx" for name in STAGES}


def test_a_bundle_differs_from_itself_in_nothing(toy_bundle: Path, tmp_path: Path, photographs: list[images.Pixels]) -> None:
    copy = Path(shutil.copytree(toy_bundle, tmp_path / "copy"))
    gate = Gate(toy_bundle, photographs, threads=1)
    stages = emulated(copy)
    for name in STAGES:
        figures = gate.measure(name, stages[name])
        assert {*figures.error.values(), *figures.noise.values()} == {0}
        assert figures.headroom == {}
    for figures, pixels in zip(gate.compare(stages), photographs, strict=True):
        height, width, _ = pixels.shape
        assert figures == {
            **{"width": width, "height": height, "tokens": 0, "symbols": 0, "bytes": 0, "psnr": np.inf, "lpips": 0}
        }


def test_figures_are_those_of_two_codecs(toy_bundle: Path, spoilt: Path, photographs: list[images.Pixels]) -> None:
    found = Gate(toy_bundle, photographs, threads=1).compare(emulated(spoilt))
    reference, candidate = (dlf.Codec(path, "onnxruntime", threads=1) for path in (toy_bundle, spoilt))
    tables = EntropyTables.from_bytes((toy_bundle / "entropy.bin").read_bytes())
    for pixels, figures in zip(photographs, found, strict=True):
        file, other = reference.encode(pixels), candidate.encode(pixels)
        assert figures["bytes"] == len(other) / len(file) - 1
        assert figures["psnr"] == pytest.approx(psnr(reference.decode(file), candidate.decode(file)))
        distances = [
            float(np.abs(picture.astype(float) - pixels).mean() / 127.5)
            for picture in (candidate.decode(other), reference.decode(file))
        ]
        assert figures["lpips"] == pytest.approx(distances[0] - distances[1], abs=1e-6)

        tokens, symbols = [], []
        for bundle in (toy_bundle, spoilt):
            stage = open_backend("onnxruntime", 1).load(Bundle(bundle), "analysis")
            latents = stage({"image": images.pad_to_tiles(pixels)})
            tokens.append(Bundle(bundle).entropy.vq_lookup(latents["z"].reshape(-1, *latents["z"].shape[3:])))
            symbols.append(np.concatenate([step.symbols for step in python_detail_steps(tables, latents["y"][0])]))
        assert figures["tokens"] == np.mean(tokens[0] != tokens[1]) > 0
        assert figures["symbols"] == pytest.approx(np.mean(symbols[0] != symbols[1]))
        assert figures["symbols"] > 0


def test_no_stage_runs_twice_on_the_same(
    toy_bundle: Path, spoilt: Path, tmp_path: Path, photographs: list[images.Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(toy_bundle, photographs, threads=1)
    stages = emulated(Path(shutil.copytree(spoilt, tmp_path / "copy")))
    loaded = []
    load = emulation.load
    monkeypatch.setattr(emulation, "load", lambda file, threads: (loaded.append(file.name.split(".")[0]), load(file, threads))[1])
    for name in STAGES:
        gate.measure(name, stages[name])
    first = gate.compare(stages)
    assert sorted(loaded) == sorted([*STAGES, "adaptor", "generator", "synthesis", "adaptor", "generator"])
    loaded.clear()
    assert gate.compare(stages) == first
    assert loaded == []

    shutil.copy(toy_bundle / "adaptor.onnx", tmp_path / "copy" / "adaptor.onnx")
    emulate(tmp_path / "copy" / "adaptor.onnx", stages["adaptor"])
    second = gate.compare(stages)
    assert second == Gate(toy_bundle, photographs, threads=1).compare(stages)
    assert [figures["psnr"] for figures in second] != [figures["psnr"] for figures in first]


def test_the_decoder_alone_decodes_the_files_of_fp32(toy_bundle: Path, spoilt: Path, photographs: list[images.Pixels]) -> None:
    found = Gate(toy_bundle, photographs, threads=1).compare_decoder(emulated(spoilt))
    reference, candidate = (dlf.Codec(path, "onnxruntime", threads=1) for path in (toy_bundle, spoilt))
    for pixels, figures in zip(photographs, found, strict=True):
        pictures = [codec.decode(reference.encode(pixels)) for codec in (candidate, reference)]
        distances = [float(np.abs(picture.astype(float) - pixels).mean() / 127.5) for picture in pictures]
        assert figures == {
            "psnr": pytest.approx(psnr(*pictures)),
            "lpips": pytest.approx(distances[0] - distances[1], abs=1e-6),
        }


def test_a_stage_of_the_decoder_disturbs_the_picture_by_itself(
    toy_bundle: Path, spoilt: Path, photographs: list[images.Pixels]
) -> None:
    gate = Gate(toy_bundle, photographs, threads=1)
    stages = emulated(spoilt)
    assert gate.disturbance("synthesis", stages["synthesis"]) == 0  # although the adaptor behind it differs
    worst = min(figures["psnr"] for figures in gate.compare_decoder(stages))  # of the decoder's stages the adaptor alone does
    assert gate.disturbance("adaptor", stages["adaptor"]) == pytest.approx(255**2 / 10 ** (worst / 10))


def test_a_stage_is_measured_on_what_fp32_gave_it(toy_bundle: Path, spoilt: Path, photographs: list[images.Pixels]) -> None:
    gate = Gate(toy_bundle, photographs, threads=1)
    stages = emulated(spoilt)
    assert set(gate.measure("synthesis", stages["synthesis"]).noise.values()) == {0}  # although the analysis before it differs
    figures = gate.measure("analysis", stages["analysis"], photographs=1)
    load = open_backend("onnxruntime", 1).load
    image = {"image": images.pad_to_tiles(photographs[0])}
    expected, actual = (load(Bundle(bundle), "analysis")(image) for bundle in (toy_bundle, spoilt))
    for name, values in expected.items():
        assert figures.error[name] == pytest.approx(np.abs(actual[name] - values).max() / np.abs(values).max())
        assert figures.noise[name] == pytest.approx(np.linalg.norm(actual[name] - values) / np.linalg.norm(values), rel=1e-4)


@pytest.mark.parametrize(
    ("figure", "value"), [("psnr", 44.9), ("tokens", 0.011), ("bytes", 0.0051), ("bytes", -0.0051), ("lpips", 0.0021)]
)
def test_each_bar_fails_by_itself(figure: str, value: float) -> None:
    assert Bars().failures([GOOD, GOOD]) == []
    assert Bars().failures([{**GOOD, figure: value}]) == [figure]
    assert Bars().failures([{**GOOD, figure: np.nan}, GOOD]) == [figure]


def test_psnr_holds_for_each_photograph_and_the_others_for_their_mean() -> None:
    assert Bars().failures([{**GOOD, "psnr": 44.0}, {**GOOD, "psnr": 90.0}]) == ["psnr"]
    assert Bars().failures([{**GOOD, "tokens": 0.015}, {**GOOD, "tokens": 0.0}]) == []
    assert Bars().failures([{**GOOD, "bytes": 0.02}, {**GOOD, "bytes": -0.02}]) == []


def test_psnr_is_that_of_8_bit_pictures() -> None:
    a = np.full((4, 4, 3), 250, np.uint8)
    assert psnr(a, a) == np.inf
    assert psnr(a, a - np.uint8(255 - 5)) == pytest.approx(20 * np.log10(255 / 250))


def test_photographs_of_a_folder(tmp_path: Path) -> None:
    images.save(np.zeros((3, 5, 3), np.uint8), tmp_path / "b.png")
    images.save(np.ones((4, 5, 3), np.uint8), tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no photograph")
    assert [pixels.shape for pixels in load_photographs(tmp_path)] == [(4, 5, 3), (3, 5, 3)]


def test_photographs_by_default_are_real_ones() -> None:
    pytest.importorskip("sklearn")
    found = load_photographs(None)
    assert [pixels.shape for pixels in found] == [(427, 640, 3)] * 2


def test_refuses_to_go_on_without_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match="no folder with photographs"):
        load_photographs(tmp_path)
    monkeypatch.setattr(parity, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match="--photographs"):
        load_photographs(None)
