"""The dlf-export command."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.export import TINY, tiny_model
from safetensors.torch import save_file
from typer.testing import CliRunner

import dlf
import dlf.export.bundle
import dlf.export.memory
import dlf.export.tf32
from dlf.export.checkpoint import GROUPS_KEY
from dlf.export.cli import app
from dlf.runtime.bundles import builtin
from dlf.runtime.bundles.bundle import Bundle

runner = CliRunner()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_file(tiny_model().state_dict(), path, {GROUPS_KEY: str(TINY.vqgan_groups)})
    return path


def fill(_: object, folder: Path, name: str, license: str | None, *__: object) -> None:
    """Write the built-in model instead of a checkpoint's, whose export takes long and has tests of its own."""
    shutil.copytree(builtin.path(), folder, dirs_exist_ok=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["model"] = {"name": name, **({"license": license} if license else {})}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_exports_and_replaces_only_when_told(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlf.export.bundle, "_fill", fill)
    monkeypatch.setattr(dlf.export.memory, "record", lambda bundle, progress: None)
    measured: list[Path] = []
    monkeypatch.setattr(dlf.export.tf32, "measure", lambda folder, photographs, progress: measured.append(folder))
    output = tmp_path / "deep" / "bundle"
    result = runner.invoke(app, [str(checkpoint), "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert (Bundle(output).name, Bundle(output).license) == ("tiny", None)
    assert measured == [output]

    again = runner.invoke(app, [str(checkpoint), "-o", str(output), "--name", "second"])
    assert again.exit_code == 1
    assert "--overwrite" in again.output
    assert Bundle(output).name == "tiny"

    def offline(*_: object, **__: object) -> None:
        raise dlf.runtime.errors.ExportError("the weights cannot be fetched")

    monkeypatch.setattr(dlf.export.tf32, "measure", offline)
    replaced = runner.invoke(app, [str(checkpoint), "-o", str(output), "--name", "caf\udce9", "--license", "MIT", "--overwrite"])
    assert replaced.exit_code == 0, replaced.output
    assert "TF32 not measured" in replaced.output
    # A file's name, and so a model's, may be no text; a manifest is.
    assert (Bundle(output).name, Bundle(output).license) == ("caf\N{REPLACEMENT CHARACTER}", "MIT")
    assert [entry.name for entry in output.parent.iterdir()] == ["bundle"]


def test_never_replaces_what_is_no_bundle(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "photos"
    output.mkdir()
    (output / "a.jpg").write_bytes(b"precious")
    result = runner.invoke(app, [str(checkpoint), "-o", str(output), "--overwrite"])
    assert result.exit_code == 1
    assert "not a bundle" in result.output
    assert (output / "a.jpg").read_bytes() == b"precious"


def test_refusal_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    result = runner.invoke(app, [str(tmp_path / "absent.ckpt"), "-o", str(tmp_path / "bundle")])
    assert result.exit_code == 1
    assert result.output == f"dlf-export: {tmp_path}/absent.ckpt: there is no such file\n"
    assert list(tmp_path.iterdir()) == []


def test_help_shows_examples_and_version_is_ours() -> None:
    shown = runner.invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert "dlf-export qp0.ckpt -o bundles/qp0" in shown.output
    assert runner.invoke(app, ["--version"]).output == f"dlf-export {dlf.__version__}\n"
    assert runner.invoke(app, []).exit_code == 2


def test_target_that_cannot_be_written_is_refused_before_the_checkpoint_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = runner.invoke(app, [str(tmp_path / "absent.ckpt"), "-o", str(tmp_path / "file" / "bundle")])
    assert result.exit_code == 1
    assert "file/bundle: cannot be written" in result.output
    assert "absent.ckpt" not in result.output


def test_without_onnx_runtime_it_says_what_to_install(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlf.export.cli.find_spec", lambda name: None)
    result = runner.invoke(app, [str(checkpoint), "-o", str(tmp_path / "bundle")])
    assert result.exit_code == 2
    assert "dlf[onnxruntime-gpu]" in " ".join(result.output.split())
