"""`dlf corpus` as a command: its report, its exit codes, and what is told if a package or a place is missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.corpus import make_pictures, tree
from typer.testing import CliRunner

import dlf
from dlf.runtime.cli import app


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-c", "from dlf.runtime.cli import main; main()", "corpus", *arguments]
    return subprocess.run(run, capture_output=True, text=True, timeout=120, env=os.environ | environment)


def test_the_command_reports_and_fails_for_a_bad_image(tmp_path, toy_bundle):
    pytest.importorskip("ray")
    photos = make_pictures(tmp_path / "photos", 4)
    (photos / "bad.png").write_bytes(b"?")
    (photos / "notes.txt").touch()
    run = command("encode", str(photos), str(tmp_path / "coded"), "--concurrency", "1", DLF_MODEL=str(toy_bundle))
    assert run.returncode == 1, run.stderr
    report = json.loads(run.stdout)
    assert (report["done"], report["failed"], report["ignored"], report["workers"]) == (4, 1, 1, 1)
    assert list(report["errors"]) == ["bad.png"] and "bad.png: ImageError" in run.stderr
    assert set(tree(tmp_path / "coded", ".dlf")) == {f"{path}.dlf" for path in tree(photos) if path[0] in "0o"}
    assert report["bpp"] == pytest.approx(8 * report["result_bytes"] / report["pixels"])


def test_a_missing_package_is_named_with_its_remedy(tmp_path):
    code = "import sys; sys.modules['ray'] = None; from dlf.runtime.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, "corpus", "encode", ".", "coded"], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 1 and not run.stdout
    assert "needs ray" in run.stderr and "pip install 'dlf[ray]'" in run.stderr


def test_usage(tmp_path: Path):
    pytest.importorskip("ray")
    run = CliRunner().invoke(app, ["corpus", "encode", str(tmp_path), str(tmp_path / "coded"), "--parquet"])
    assert run.exit_code == 2 and "lies in" in run.stderr
    assert CliRunner().invoke(app, ["corpus", "encode", "nothing://a", str(tmp_path)]).exit_code == 2


def test_help_imports_no_engine():
    code = "import sys, dlf.runtime.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {name.partition(".")[0] for name in loaded} & {"ray", "pyarrow", "rich"}
    assert dlf.__name__ in loaded
