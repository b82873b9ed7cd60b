"""The service's page in headless Chromium: a dropped image, a dropped .dlf file, and one that is neither."""

import base64
import json
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from helpers.serve import png

import dlf

# `make web` installs it there.
PLAYWRIGHT = Path(__file__).parents[3] / "build" / "web-npm" / "node_modules" / "playwright-core"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NODE = shutil.which("node")


@pytest.mark.skipif(not PLAYWRIGHT.is_dir(), reason="playwright-core is not installed; make web installs it")
@pytest.mark.skipif(CHROMIUM is None or NODE is None, reason="Chromium or node is not installed")
def test_dropped_files_are_shown(site, toy_bundle):
    image = png(30, 40)
    coded = dlf.Codec(toy_bundle, "openvino", 1, device="cpu").encode(BytesIO(image))
    dropped = {"a photo.png": image, "b.dlf": coded, "c.txt": b"no picture"}
    files = [{"name": name, "data": base64.b64encode(data).decode()} for name, data in dropped.items()]
    command = [NODE, Path(__file__).parent / "page.mjs", PLAYWRIGHT, CHROMIUM, f"http://127.0.0.1:{site.port}/"]
    done = subprocess.run(command, input=json.dumps(files), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    photo, file, neither = json.loads(done.stdout)
    told = f"{len(coded)} bytes, {8 * len(coded) / 1200:.4f} bits per pixel"
    assert photo["status"].startswith("40x30: encoded in ") and photo["kind"] == ""
    assert photo["pictures"] == [[40, 30, f"{len(image)} bytes"], [40, 30, told]]
    assert (photo["name"], base64.b64decode(photo["saved"])) == ("a photo.dlf", coded)
    assert file["status"].startswith("40x30: decoded in ") and file["pictures"] == [[40, 30, told]]
    assert neither["kind"] == "error" and neither["status"].startswith("ImageError: ")
    assert photo["footer"].startswith("Model toy ")
    # Chromium tells of the refusal; nothing else is wrong.
    assert [line for line in done.stderr.splitlines() if "400 (Bad Request)" not in line] == []
