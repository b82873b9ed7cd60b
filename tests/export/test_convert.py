"""Converting bundles: what is written, what is returned to fp32 and named, what is refused."""

import json
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import inf
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from helpers.bundle import CHANNELS, GAIN, save_stage, seal
from helpers.parity import named_copy
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from typer.testing import CliRunner

import dlf
from dlf.export import convert, parity
from dlf.export.cli import app
from dlf.export.convert import convert_bundle
from dlf.export.fewest import trials
from dlf.export.fp16 import element_types
from dlf.export.parity import Bars
from dlf.export.progress import Progress
from dlf.runtime import images
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import ExportError

pytestmark = pytest.mark.usefixtures("no_lpips")
LOOSE = Bars(tokens=1, bytes=1, lpips=1)  # so that only what a test is about can fail
LAX = replace(LOOSE, psnr=0, headroom=0)
runner = CliRunner()


@pytest.fixture
def source(toy_bundle: Path, tmp_path: Path) -> Path:
    return named_copy(toy_bundle, tmp_path / "source")


@pytest.fixture(scope="module")
def photographs() -> list[images.Pixels]:
    return [np.random.default_rng(5).integers(0, 256, (256, 300, 3), dtype=np.uint8)]


def manifest_of(bundle: Path) -> dict[str, dict[str, dict[str, object]]]:
    content: dict[str, dict[str, dict[str, object]]] = json.loads((bundle / "manifest.json").read_text())
    return content


def test_writes_a_bundle_that_decodes_what_the_other_wrote(
    source: Path, tmp_path: Path, photographs: list[images.Pixels], backend: str
) -> None:
    output = tmp_path / "fp16"
    convert_bundle(source, output, "fp16", photographs, bars=LOOSE)
    assert sorted(file.name for file in output.iterdir()) == sorted(["manifest.json", *Bundle(output).manifest["files"]])
    assert (Bundle(output).precision, Bundle(output).fingerprint) == ("fp16", Bundle(source).fingerprint)
    assert (output / "entropy.bin").read_bytes() == (source / "entropy.bin").read_bytes()
    for stage, entry in manifest_of(output)["stages"].items():
        assert entry["fp32_nodes"] == []
        types = element_types(onnx.load(output / f"{stage}.onnx", load_external_data=False))
        assert (TensorProto.FLOAT16 in types.values()) == (stage != "generator")  # which has no layer
    (figures,) = manifest_of(output)["against_fp32"]["photographs"]
    assert isinstance(figures, dict)
    assert figures["psnr"] is None or figures["psnr"] >= 45  # None: equal

    fp32, fp16 = (dlf.Codec(path, backend, threads=1) for path in (source, output))
    for writer, reader in ((fp32, fp16), (fp16, fp32)):
        file = writer.encode(photographs[0])
        assert parity.psnr(reader.decode(file), writer.decode(file)) > 45


def test_what_leaves_the_range_of_fp16_goes_back_to_fp32(source: Path, tmp_path: Path, photographs: list[images.Pixels]) -> None:
    huge = 2.0**20
    model = onnx.load(source / "synthesis.onnx")
    nodes = {node.output[0]: node for node in model.graph.node}
    nodes["colours"].output[0] = "huge"
    shrink = onnx.helper.make_node("Conv", ["huge", "shrinking"], ["colours"], "node_shrink")
    order = [node for name, node in nodes.items() if name != "detail"]
    save_stage(
        source / "synthesis.onnx",
        [*order, shrink, nodes["detail"]],
        {"z_hat": ["n", "h", "w", 4, 32], "y_hat": ["n", CHANNELS, "8h", "8w"]},
        {"semantic": ["n", None, "16h", "16w"], "detail": ["n", None, "16h", "16w"]},
        **{tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name != "from_y"},
        from_y=huge * np.eye(3, CHANNELS, dtype=np.float32)[:, :, None, None] / GAIN,
        shrinking=1 / huge * np.eye(3, dtype=np.float32)[:, :, None, None],
    )
    seal(source)
    convert_bundle(source, tmp_path / "fp16", "fp16", photographs, bars=LOOSE)
    stages = manifest_of(tmp_path / "fp16")["stages"]
    assert stages["synthesis"]["fp32_nodes"] == ["node_colours", "node_shrink"]  # what computes it, and what would have it cast
    assert (stages["synthesis"]["precision"], stages["adaptor"]["precision"]) == ("fp32", "fp16")
    assert stages["adaptor"]["fp32_nodes"] == []


@pytest.mark.parametrize("bars", [LOOSE, replace(LOOSE, psnr=0, lpips=1e-5)], ids=["psnr", "lpips"])
def test_the_stage_that_spoils_the_picture_goes_back_to_fp32(
    source: Path, tmp_path: Path, photographs: list[images.Pixels], bars: Bars
) -> None:
    """The tint is made by subtracting large numbers, and is noise in fp16: the adaptor alone is the cause."""
    model = onnx.load(source / "adaptor.onnx")
    nodes = list(model.graph.node)
    nodes[0].output[0] = "small"
    far, back = (np.full((1, 3, 1, 1), sign * 3001.0, np.float32) for sign in (1, -1))
    model.graph.initializer.extend([onnx.numpy_helper.from_array(far, "far"), onnx.numpy_helper.from_array(back, "back")])
    away = onnx.helper.make_node("Add", ["small", "far"], ["away"], "node_away")
    near = onnx.helper.make_node("Add", ["away", "back"], ["tinted"], "node_near")
    del model.graph.node[:]
    model.graph.node.extend([nodes[0], away, near, *nodes[1:]])
    onnx.save(model, source / "adaptor.onnx")
    seal(source)
    convert_bundle(source, tmp_path / "fp16", "fp16", photographs, bars=bars)
    stages = manifest_of(tmp_path / "fp16")["stages"]
    assert {name: entry["fp32_nodes"] for name, entry in stages.items()} == {
        **{"analysis": [], "synthesis": [], "adaptor": ["node_tinted"], "generator": []}
    }
    assert stages["adaptor"]["precision"] == "fp32"


class Counted(Progress):
    """Sums up what is done."""

    done = 0.0

    def advance(self, units: float) -> None:
        super().advance(units)
        assert self.left > -0.001
        self.done += units


@pytest.mark.parametrize(("target", "bars"), [("fp16", LAX), ("int8", LAX), ("int8", replace(LAX, psnr=inf))])
def test_all_work_that_is_expected_is_done(
    source: Path, tmp_path: Path, photographs: list[images.Pixels], target: str, bars: Bars
) -> None:
    told = Counted()
    calibration = photographs if target == "int8" else None
    convert_bundle(source, tmp_path / target, target, photographs, calibration=calibration, bars=bars, progress=told)
    assert told.left == pytest.approx(0)
    assert told.done > 0
    stages = manifest_of(tmp_path / target)["stages"].values()
    assert any(entry["fp32_nodes"] for entry in stages) == (bars.psnr == inf)


@dataclass
class StandIn:
    """A stage of one layer a run, whose errors are given: in its own output, and `gain` times as large in the picture."""

    name: str
    errors: list[float]
    gain: float
    emulated = Path()
    kept: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)

    @property
    def runs(self) -> list[list[str]]:
        return [[f"{self.name} {i}"] for i in range(len(self.errors))]

    def noise(self, run: list[str], gate: object) -> dict[str, float]:
        return {"picture": self.errors[self.runs.index(run)], "nothing": 0.0}

    def write(self, kept: set[str]) -> None:
        self.written = kept

    def convert(self, gate: object) -> None:
        assert self.written == self.kept

    def disturbance(self) -> float:
        """The squared error of the picture."""
        return sum((self.gain * e) ** 2 for run, e in zip(self.runs, self.errors, strict=True) if run[0] not in self.written)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 9)), min_size=1, max_size=3),
    st.floats(0, 1),
)
def test_of_errors_that_add_up_the_fewest_runs_return_in_few_passes(stages: list[tuple[list[int], int]], share: float) -> None:
    blamed = [StandIn(str(i), [e / 10 for e in errors], gain) for i, (errors, gain) in enumerate(stages)]
    gate = SimpleNamespace(tiles=[6, 6], disturbance=lambda name, _: blamed[int(name)].disturbance())
    bar = share * sum(stage.disturbance() for stage in blamed)
    passes: list[bool] = []

    def judged() -> bool:
        passes.append(sum(stage.disturbance() for stage in blamed) <= bar * (1 + 1e-9))
        return passes[-1]

    told = Counted()
    convert._return_fewest(blamed, gate, ["psnr"], judged, 3, told)  # type: ignore[arg-type]
    assert judged()
    squares = [(stage.gain * error) ** 2 for stage in blamed for error in stage.errors]
    enough = (
        count
        for count in range(1, len(squares) + 1)
        if any(sum(left) <= bar * (1 + 1e-9) for left in combinations(squares, len(squares) - count))
    )
    assert sum(len(stage.kept) for stage in blamed) == next(enough)
    assert len(passes) <= trials(len(squares)) + 2  # the last of the search, and this test's own
    assert told.left == 0  # of the work that was expected, and was not done


@pytest.mark.parametrize(
    ("failed", "order"), [("tokens", [1, 0, 2]), ("bytes", [0, 2, 1]), ("tokens bytes", [1, 0, 2]), ("psnr", [1, 2, 0])]
)
def test_of_the_analysis_the_runs_return_first_that_disturb_what_the_failed_bars_measure(failed: str, order: list[int]) -> None:
    noises = [{"z": 0.2, "y": 0.3, "x": 0.0}, {"z": 0.8, "y": 0.1, "x": 0.0}, {"z": 0.1, "y": 0.2, "x": 0.7}]
    stage = SimpleNamespace(name="analysis", runs=[["0"], ["1"], ["2"]], noise=lambda run, gate: noises[int(run[0])])
    assert [int(run[0]) for _, run in convert._worst_first([stage], None, failed.split())] == order  # type: ignore[arg-type, list-item]


def test_refuses_and_writes_nothing_where_a_bar_cannot_be_reached(
    source: Path, tmp_path: Path, photographs: list[images.Pixels]
) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="tokens"):
        convert_bundle(source, tmp_path / "out" / "fp16", "fp16", photographs, bars=replace(LOOSE, tokens=-1))
    assert list((tmp_path / "out").iterdir()) == []


def test_refuses_a_bundle_that_is_not_fp32(source: Path, tmp_path: Path, photographs: list[images.Pixels]) -> None:
    seal(source, precision="fp16")
    with pytest.raises(ExportError, match="is in fp16; convert the fp32 bundle"):
        convert_bundle(source, tmp_path / "again", "fp16", photographs)


def test_command(source: Path, tmp_path: Path, photographs: list[images.Pixels]) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    images.save(photographs[0], folder / "a.png")
    command = [str(source), "--photographs", str(folder), "-o", str(tmp_path / "fp16")]
    done = runner.invoke(app, [*command, "--precision", "fp16"])
    assert done.exit_code == 0, done.output
    assert Bundle(tmp_path / "fp16").precision == "fp16"

    assert runner.invoke(app, [*command, "--precision", "fp8", "--overwrite"]).exit_code == 2
    for options in ([], ["--precision", "fp16", "--name", "x"], ["--precision", "fp16", "--half-weights"]):
        refused = runner.invoke(app, [*command, *options, "--overwrite"])
        assert refused.exit_code == 2
        assert "a bundle can only be converted" in refused.output.replace("\n", " ").replace("│", "")
    assert Bundle(tmp_path / "fp16").precision == "fp16"


def test_command_that_fails_the_gate_exits_with_1(
    source: Path, tmp_path: Path, photographs: list[images.Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dlf.export.convert.TARGETS, "fp16", ("dlf.export.fp16", Bars(tokens=-1)))
    monkeypatch.setattr(parity, "load_photographs", lambda folder: photographs)
    result = runner.invoke(app, [str(source), "-o", str(tmp_path / "out" / "fp16"), "--precision", "fp16"])
    assert result.exit_code == 1
    assert "dlf-export: the bars tokens" in result.output
    assert list((tmp_path / "out").iterdir()) == []
