"""`dlf serve` as a process: the bytes of the codec, a worker that ends, SIGTERM, and what is told if it cannot start."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from helpers.serve import command, png
from typer.testing import CliRunner

import dlf
from dlf.runtime.cli import app


def workers() -> list[int]:
    """The processes with a codec."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::ServeReplica:dlf:Worker"):
                found.append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    return found


def test_it_serves_and_finishes_what_it_took(toy_bundle):
    pytest.importorskip("ray")
    image, large = png(300, 40), png(1400, 700)
    with command(toy_bundle, "--threads", "1", "--backend", "openvino") as (site, process), ThreadPoolExecutor(6) as clients:
        assert site.post("/encode", image).body == dlf.Codec(toy_bundle, "openvino", 1, device="cpu").encode(BytesIO(image))
        assert site.ask("GET", "/ready").status == 200
        line = 'dlf_received_bytes_total{path="/encode"}'
        all_there = site.metric(line) + 6 * len(large)
        answers = [clients.submit(site.post, "/encode", large) for _ in range(6)]
        while site.metric(line) < all_there:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert {answer.result().status for answer in answers} == {200}
        assert process.wait(60) == 0


@pytest.mark.slow
def test_a_worker_that_ends_is_replaced(toy_bundle):
    pytest.importorskip("ray")
    before = set(workers())
    with command(toy_bundle, "--threads", "1", "--backend", "openvino") as (site, _):
        image = png(300, 40)
        coded = site.post("/encode", image).body
        for worker in set(workers()) - before:
            os.kill(worker, signal.SIGKILL)
        assert site.post("/encode", image).body == coded
        assert site.post("/decode", coded).status == 200


def test_a_model_that_is_none(tmp_path):
    run = [sys.executable, "-c", "from dlf.runtime.cli import main; main()", "serve", "--port", "0", "--model", str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "") and "manifest.json" in done.stderr and "Traceback" not in done.stderr


def test_a_port_that_is_taken(site):
    done = CliRunner().invoke(app, ["serve", "--port", str(site.port)])
    assert done.exit_code == 1 and "in use" in done.stderr


def test_a_missing_package_is_named_with_its_remedy():
    code = "import sys; sys.modules['uvicorn'] = None; from dlf.runtime.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "serve"], capture_output=True, text=True)
    assert done.returncode == 1 and "needs uvicorn" in done.stderr and "pip install 'dlf[serve]'" in done.stderr
