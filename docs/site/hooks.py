"""MkDocs' hooks: pages that are made from the sources, and links that lead out of docs/.

docs/ is read on a code host as well, where a link to `../examples/c/dlf_batch.c` leads to that file. The site has copies of them.
"""

import os
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

import commands  # noqa: E402
import header  # noqa: E402

LINK = re.compile(r"\]\(\.\./([^)#\s]+)\)")
C_HEADER = "runtime/native/include/dlf.h"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the commands and of dlf.h, and the files that pages link to outside docs/."""
    files.append(File.generated(config, "dlf.h.md", content=header.markdown()))
    for program in commands.PROGRAMS:
        files.append(File.generated(config, f"commands/{program}.md", content=commands.markdown(program)))
    pages = (Path(config.docs_dir) / file.src_uri for file in files.documentation_pages() if file.generated_by is None)
    linked = {target for page in pages for target in LINK.findall(page.read_text(encoding="utf-8"))}
    for target in sorted(linked - {C_HEADER}):
        source = ROOT / target
        if source.is_file():
            files.append(File.generated(config, _copy(target), content=source.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links out of docs/ to the copies; a folder has none, and its name stays without a link."""

    def lead(match: re.Match[str]) -> str:
        target = match[1]
        depth = "../" * page.file.src_uri.count("/")
        if target == C_HEADER:
            return f"]({depth}dlf.h.md)"
        return f"]({depth}{_copy(target)})"

    return LINK.sub(lead, markdown)


def _copy(target: str) -> str:
    """Where the site has a file's copy: as text, which a browser shows."""
    return f"source/{target}" if os.path.splitext(target)[1] in (".md", ".txt", ".html") else f"source/{target}.txt"
