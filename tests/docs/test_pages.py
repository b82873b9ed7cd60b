"""The site and the man pages: all is there, made from the sources, and complete."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from helpers.c import tool

ROOT = Path(__file__).parents[2]
MAN = ROOT / "docs" / "man"


@pytest.fixture(scope="module")
def commands() -> ModuleType:
    sys.path.insert(0, str(ROOT / "docs" / "site"))
    return import_module("commands")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning of MkDocs, such as one of a link that leads nowhere, is an error."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return folder


class Page(HTMLParser):
    """What a page links to and loads, its anchors, and its text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if values.get("id"):
            self.anchors.add(str(values["id"]))
        if tag == "a" and values.get("href"):
            self.links.append(str(values["href"]))
        elif tag in ("link", "script", "img") and (values.get("href") or values.get("src")):
            self.loaded.append(str(values.get("href") or values.get("src")))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in sorted(site.rglob("*.html")) if file.name != "404.html"}


def test_links_lead_somewhere_within_the_site(pages):
    """Of the pages as they are built, the generated ones and the theme's own links too."""
    assert len(pages) > 12
    for file, page in pages.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            found = (file.parent / target).resolve() if target else file
            assert found.exists(), f"{file.name}: {link}"
            if anchor and found in pages:
                assert anchor in pages[found].anchors, f"{file.name}: {link}"


def test_nothing_is_loaded_from_elsewhere(pages):
    assert [what for page in pages.values() for what in page.loaded if re.match(r"(?:[a-z]+:)?//", what)] == []


def test_every_option_is_told(pages, commands):
    for program in commands.PROGRAMS:
        (text,) = [page.text for file, page in pages.items() if file.name == f"{program}.html"]
        for command in commands.commands(program):
            told = [spelling for entries in command.parameters.values() for spelling, _ in entries]
            assert told and [spelling for spelling in told if spelling not in text] == []


def test_every_function_and_struct_of_the_header_is_told(pages):
    (page,) = [page for file, page in pages.items() if file.name == "dlf.h.html"]
    header = (ROOT / "runtime" / "native" / "include" / "dlf.h").read_text()
    names = re.findall(r"DLF_API [\w *]+?\b(dlf_\w+)\(", header)
    names += re.findall(r"^typedef (?:struct|enum) (\w+)", header, re.MULTILINE)
    assert len(names) > 50
    headings = {name for anchor in page.anchors for name in re.findall(r"dlf_\w+", anchor)}
    assert [name for name in names if name not in headings or name not in page.text] == []


def test_every_error_is_told(pages):
    import dlf

    (text,) = [page.text for file, page in pages.items() if file.name == "python.html"]
    assert [name for name in dlf.__all__ if name not in text] == []


def test_man_pages_are_those_of_the_commands(commands):
    for program in commands.PROGRAMS:
        assert (MAN / f"{program}.1").read_text() == commands.man(program), "run: make man"


def test_man_takes_them_without_a_warning():
    for page in sorted(MAN.glob("*.1")):
        run = subprocess.run([tool("groff", "groff-base"), "-man", "-Tutf8", "-ww", page], capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, "")
        assert re.search(rf"^ +{page.stem} +- +[A-Z]", re.sub(r".\x08|\x1b\[[0-9;]*m", "", run.stdout), re.MULTILINE)
