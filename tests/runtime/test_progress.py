"""Steps that take long: the log, and what a command shows of them on a terminal."""

import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlf
from dlf.runtime import progress

LOADING = ["loading analysis (1 of 1)", "loading synthesis (1 of 3)", "loading adaptor (2 of 3)", "loading generator (3 of 3)"]


def test_stages_are_told_when_they_begin_to_load(codec, caplog):
    caplog.set_level(logging.DEBUG, "dlf")
    codec.decode(codec.encode(np.zeros((10, 10, 3), np.uint8)))
    told = [record.getMessage() for record in caplog.records if record.name == "dlf.runtime.progress"]
    assert told == LOADING


def test_steps_are_shown_while_they_last():
    shown = []

    @contextmanager
    def show(what: str) -> Iterator[None]:
        shown.append(what)
        yield
        shown.append("")

    with progress.shown_by(show):
        with progress.step("a"):
            shown.append("in a")
        with pytest.raises(ValueError, match="b"), progress.shown_by(show):
            raise ValueError("b")
        with progress.step("c"):
            pass
    with progress.step("d"):
        pass
    assert shown == ["a", "in a", "", "c", ""]


def on_terminal(folder: Path, *arguments: str, stdout: bool = False) -> str:
    """What a command writes to a terminal: its standard error, and if wanted its standard output."""
    reader, writer = pty.openpty()
    command = [sys.executable, "-c", "from dlf.runtime.cli import main; main()", *arguments]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stderr=writer, stdout=writer if stdout else subprocess.DEVNULL
    ) as process:
        os.close(writer)
        written = b""
        try:
            while piece := os.read(reader, 1 << 16):
                written += piece
        except OSError:  # the other end is closed
            pass
    os.close(reader)
    assert process.returncode == 0, written
    return written.decode()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a.dlf and b.dlf, of the built-in model."""
    with dlf.Codec() as codec:
        for name in "ab":
            (tmp_path / f"{name}.dlf").write_bytes(codec.encode(Image.new("RGB", (10, 10))))
    return tmp_path


@pytest.mark.parametrize("names", [["a.dlf"], ["a.dlf", "b.dlf"]])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_terminal_names_the_stage_that_is_loaded(pictures, names, form):
    written = on_terminal(pictures, "decode", *names, *form)
    assert all(text in written for text in LOADING[1:])


@pytest.mark.parametrize(("form", "stdout"), [("--quiet", False), ("--json", True)])
def test_nothing_is_shown_to_the_quiet_or_beside_json(pictures, form, stdout):
    written = on_terminal(pictures, "decode", "a.dlf", "b.dlf", form, stdout=stdout)
    assert "loading" not in written
    assert "\x1b" not in written


def test_what_is_no_terminal_gets_lines_alone(pictures):
    command = [sys.executable, "-c", "from dlf.runtime.cli import main; main()", "decode", "a.dlf", "b.dlf"]
    done = subprocess.run(command, cwd=pictures, capture_output=True, text=True, check=True)
    assert "loading" not in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_doctor_and_demo_name_stages_too(tmp_path):
    assert all(text in on_terminal(tmp_path, "doctor") for text in LOADING)
    assert all(text in on_terminal(tmp_path, "demo") for text in LOADING)
