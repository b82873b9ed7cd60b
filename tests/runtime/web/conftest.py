"""The built page in headless Chromium; tests skip, with the reason, where `make web` was not run or a program is missing."""

import base64
import importlib.util
import json
import shutil
import subprocess
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BUILT = ROOT / "build" / "web"
PLAYWRIGHT = ROOT / "build" / "web-npm" / "node_modules" / "playwright-core"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NODE = shutil.which("node")


class Page:
    """Runs scripts in a page of a folder that is served; see browser.mjs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, script, files=None, **options):
        encoded = {name: base64.b64encode(data).decode() for name, data in (files or {}).items()}
        work = json.dumps({"files": encoded, "script": script, **options})
        command = [NODE, str(Path(__file__).parent / "browser.mjs"), str(PLAYWRIGHT), CHROMIUM, self.url]
        done = subprocess.run(command, input=work, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A copy of the built folder, with the built-in model in fp32 beside the one in int8."""
    if not (BUILT / "model").is_dir() or not PLAYWRIGHT.is_dir():
        pytest.skip("build/web is not there; make web builds it")
    if CHROMIUM is None or NODE is None:
        pytest.skip("Chromium or node is not installed")
    folder = tmp_path_factory.mktemp("site") / "web"
    shutil.copytree(BUILT, folder)
    shutil.copytree(ROOT / "runtime" / "models" / "builtin", folder / "fp32")
    return folder


@pytest.fixture(scope="session")
def page(site):
    spec = importlib.util.spec_from_file_location("serve", ROOT / "examples" / "web" / "serve.py")
    serve = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serve)

    class Quiet(serve.Isolated):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Page(f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
