"""The client in C talks to the service over HTTP."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest
from helpers.c import build_example

import dlf

for package in ("starlette", "uvicorn", "prometheus_client"):
    pytest.importorskip(package)
from helpers.serve import png, serving  # noqa: E402


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    build_example(folder, "dlf_http", [])
    return folder / "dlf_http"


def test_it_encodes_decodes_and_waits_for_a_full_service(program, toy_bundle, tmp_path):
    (tmp_path / "a.png").write_bytes(png(30, 40))

    def run(*arguments):
        return subprocess.run([program, *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    with serving(toy_bundle, queue=1) as site, ThreadPoolExecutor(2) as others:
        here = ("127.0.0.1", site.port)
        site.gate.clear()
        other = others.submit(site.post, "/encode", png(1, 1))
        site.begun.acquire()
        encoding = others.submit(run, *here, "encode", "a.png", "a.dlf")
        while not site.metric('dlf_requests_total{path="/encode",status="503"}'):
            pass
        site.gate.set()
        assert (encoding.result().returncode, other.result().status) == (0, 200), encoding.result().stderr
        assert run(*here, "decode", "a.dlf", "b.png").returncode == 0
        refused = run(*here, "decode", "a.png", "c.png")
        assert refused.returncode == 1 and '400 {"error":"NotDLFError"' in refused.stderr
    data = (tmp_path / "a.dlf").read_bytes()
    assert data == dlf.Codec(toy_bundle, "openvino", 1, device="cpu").encode(BytesIO(png(30, 40)))
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    gone = run(*here, "encode", "a.png", "c.dlf")
    assert (gone.returncode, gone.stderr) == (1, "dlf_http: the service does not answer\n")
    assert not (tmp_path / "c.dlf").exists() and not (tmp_path / "c.png").exists()
