"""What README.md and docs/ show runs: their fenced blocks of Python and of shell, page by page, in a folder with what they name.

A block of shell is `sh`; one that is only to be read is `text`. `<!--- skip: next "why" -->` leaves out the next block.
"""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from unittest import SkipTest

import numpy as np
import pytest
from PIL import Image
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

import dlf

ROOT = Path(__file__).parents[2]
PROGRAMS = re.compile(r"(?:^|\| )(ffmpeg|gst-launch-1\.0|cc)\b", re.MULTILINE)  # which a machine may lack


class MissingProgramError(Exception):
    """A block's program is not installed."""


def run_shell(example: Example) -> None:
    """Run a block as one script that ends at its first failure."""
    for program in PROGRAMS.findall(example.parsed):
        if not shutil.which(program):
            raise MissingProgramError(f"{program} is not installed")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", example.parsed]
    run = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert run.returncode == 0, f"{example.parsed}\n{run.stdout}{run.stderr}"


SYBIL = Sybil(parsers=[PythonCodeBlockParser(), CodeBlockParser("sh", run_shell), SkipParser()])
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if list(SYBIL.parse(page).examples())]


@pytest.fixture
def workplace(page: Path, tmp_path: Path, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the pages name: photographs, `bundle`, and for those that do not make it a file of the built-in model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DLF_MODEL", raising=False)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)).resize((320, 240))
    for name in ("photo.jpg", "a.jpg", "b.jpg", "a.png", "b.png"):
        picture.save(name)
    if "dlf encode photo.jpg\n" not in page.read_text() or page.name == "README.md":
        Path("photo.dlf").write_bytes(dlf.Codec().encode("photo.jpg"))
    Path("bundle").symlink_to(toy_bundle)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page, workplace):
    missing = []
    for example in SYBIL.parse(page).examples():
        try:
            with suppress(SkipTest):  # as the page says
                example.evaluate()
        except MissingProgramError as error:
            missing.append(str(error))
    if missing:
        pytest.skip(missing[0])
