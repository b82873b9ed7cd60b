"""Runs scripts in a built page in headless Chromium, for tests and measurements."""

import base64
import importlib.util
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PLAYWRIGHT = ROOT / "build" / "web-npm" / "node_modules" / "playwright-core"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NODE = shutil.which("node")


def missing(folder: Path) -> str | None:
    """What is not there to run a folder's page in Chromium, in words; None if all is."""
    if not (folder / "model").is_dir() or not PLAYWRIGHT.is_dir():
        return f"{folder} is not there, or playwright-core; make web builds both"
    return "Chromium or node is not installed" if CHROMIUM is None or NODE is None else None


class Page:
    """A page that is served."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, script: str, files: Mapping[str, bytes] | None = None, *, timeout: float = 300, **options: Any) -> Any:
        """Run a script (browser.mjs says how) with these files; return what it returns.

        `options`: the "view", as playwright's newContext takes it; "shot", the file of a screenshot; "flags" of Chromium's own.
        """
        encoded = {name: base64.b64encode(data).decode() for name, data in (files or {}).items()}
        command = [str(part) for part in (NODE, HERE / "browser.mjs", PLAYWRIGHT, CHROMIUM, self.url)]
        work = json.dumps({"files": encoded, "script": script, **options})
        done = subprocess.run(command, input=work, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@contextmanager
def serving(folder: Path, *, isolated: bool = True) -> Iterator[Page]:
    """Serve a folder, with the headers that threads need or without."""
    base = _serve_py().Isolated if isolated else SimpleHTTPRequestHandler

    class Quiet(base):  # type: ignore[misc, valid-type]
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Page(f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()


def _serve_py() -> ModuleType:
    spec = importlib.util.spec_from_file_location("serve", ROOT / "examples" / "web" / "serve.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
