"""The CPU's figures: every peer in both directions, with rates from the graphs' operations."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.export import TINY, tiny_model
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from dlf.benchmarks import cpu, graph_cost
from dlf.benchmarks.speed_worker import Job
from dlf.export.checkpoint import GROUPS_KEY


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(path)
    return path


def test_times_every_peer_and_divides_by_what_a_stage_computes(tiny_bundle: Path, photo: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "tiny.safetensors"
    save_file(tiny_model().state_dict(), checkpoint, {GROUPS_KEY: str(TINY.vqgan_groups)})
    app = cpu.typer.Typer()
    app.command()(cpu.main)
    options = ["--checkpoint", str(checkpoint), "--threads", "1", "--repeats", "1", "--json", str(tmp_path / "cpu.json")]
    result = CliRunner().invoke(app, [str(photo), "--model", str(tiny_bundle), *options])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "cpu.json").read_text())
    peers = ["torch", *(name for name in ("openvino", "onnxruntime") if name in cpu.installed())]
    assert [(r["peer"], r["direction"]) for r in content["results"]] == [(p, d) for p in peers for d in ("encode", "decode")]
    assert (content["image"], content["width"], content["height"], content["threads"]) == ("photo.png", 300, 200, 1)
    assert content["machine"]["vectors"]
    for found in content["results"]:
        assert found["versions"].keys() == {found["peer"]}
        assert set(found["stages"]) == set(cpu.STAGES[found["direction"]])
        assert sum(found["stages"].values()) <= found["seconds"]
        for stage, rate in found["rates"].items():
            flops = graph_cost.count(tiny_bundle / f"{stage}.onnx", {"n": 1, "h": 1, "w": 2}).flops
            assert rate * found["stages"][stage] == pytest.approx(flops)
            assert found["shares"][stage] == pytest.approx(rate / content["gemm"]["fp32"])
        assert (found["peak_bytes_low_memory"] is None) == (found["peer"] == "torch")


def test_a_peer_that_fails_is_named_and_the_others_are_timed(tiny_bundle: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "no.ckpt").write_bytes(b"no checkpoint")
    app = cpu.typer.Typer()
    app.command()(cpu.main)
    options = ["--checkpoint", str(tmp_path / "no.ckpt"), "--threads", "1", "--repeats", "1"]
    result = CliRunner().invoke(app, [str(photo), "--model", str(tiny_bundle), *options])
    assert result.exit_code == 0, result.output
    assert "torch fp32 encode: Measuring torch encode ended with status 1" in " ".join(result.output.split())
    assert "openvino fp32 decode" in result.output


def test_peers_are_timed_in_turns(tiny_bundle: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = []

    def in_a_process(job: Job) -> dict[str, Any]:
        jobs.append(job)
        steps = {stage: [1.0] for stage in cpu.STAGES[job.direction]}
        return {"warm": [len(jobs)], "steps": steps, "peak_bytes": 1, "versions": {}}

    monkeypatch.setattr(cpu, "in_a_process", in_a_process)
    monkeypatch.setattr(cpu, "installed", lambda: ("openvino", "onnxruntime"))
    cpu.main(photo, [tiny_bundle], repeats=1, turns=2, json_file=tmp_path / "cpu.json")
    timed = [(job.peer, job.direction) for job in jobs if not job.low_memory]
    assert timed == 2 * [(peer, direction) for peer in ("openvino", "onnxruntime") for direction in ("encode", "decode")]
    assert sum(job.low_memory for job in jobs) == 4
    assert json.loads((tmp_path / "cpu.json").read_text())["turns"] == 2


def test_the_runs_of_all_turns_make_one_median() -> None:
    def timing(warm: list[float], analysis: list[float], peak_bytes: int) -> dict[str, Any]:
        return {"warm": warm, "steps": {"analysis": analysis}, "peak_bytes": peak_bytes, "versions": {"openvino": "1"}}

    peer = cpu.Peer("openvino", Path("bundle"), "fp32", {"analysis": 60})
    timings = [timing([3.0, 9.0], [2.0, 8.0], 100), timing([4.0], [3.0], 200), timing([2.0, 5.0], [1.0, 4.0], 150)]
    result = cpu.Runs(peer, "encode", timings, low_memory=50).result({"fp32": 40.0})
    assert (result.seconds, result.stages) == (4.0, {"analysis": 3.0})
    assert (result.rates, result.shares) == ({"analysis": 20.0}, {"analysis": 0.5})
    assert (result.peak_bytes, result.peak_bytes_low_memory) == (200, 50)
