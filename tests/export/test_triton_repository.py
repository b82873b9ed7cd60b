"""The model repository of Triton Inference Server, on the real server where there is one.

DLF_TRITON names the folder `tritonserver` of nvidia-pytriton's wheel; tritonclient[http,grpc] has to be there too.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.serve import png
from typer.testing import CliRunner

import dlf
from dlf.export.cli import app
from dlf.export.triton_repository import write
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BundleForeignError
from dlf.runtime.images import encode_as

TRITON = os.environ.get("DLF_TRITON")


def test_a_repository_holds_the_bundle_and_three_models(toy_bundle: Path, tmp_path: Path) -> None:
    write(toy_bundle, tmp_path / "repository", threads=3)
    assert Bundle(tmp_path / "repository" / "bundle").fingerprint == Bundle(toy_bundle).fingerprint
    models = tmp_path / "repository" / "models"
    assert sorted(path.name for path in models.iterdir()) == ["dlf_decode", "dlf_encode", "dlf_info"]
    for model in models.iterdir():
        config = (model / "config.pbtxt").read_text()
        assert f'name: "{model.name}"' in config and 'string_value: "3"' in config and "$" not in config
        assert (model / "../../bundle").resolve() == tmp_path / "repository" / "bundle"
        compile((model / "1" / "model.py").read_text(), "model.py", "exec")


def test_the_command_names_the_server_s_option(toy_bundle: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [str(toy_bundle), "-o", str(tmp_path / "r"), "--triton-repository"])
    assert done.exit_code == 0 and f"--model-repository={tmp_path / 'r' / 'models'}" in done.stderr


def test_what_is_no_bundle_is_refused_and_nothing_written(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(BundleForeignError):
        write(tmp_path / "source", tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize("options", [["--precision", "fp16"], ["--web"], ["--name", "other"]])
def test_options_that_change_a_bundle_are_refused(toy_bundle: Path, tmp_path: Path, options: list[str]) -> None:
    done = CliRunner().invoke(app, [str(toy_bundle), "-o", str(tmp_path / "r"), "--triton-repository", *options])
    assert done.exit_code == 2 and not (tmp_path / "r").exists()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def server(repository: Path, logs: Path) -> Iterator[tuple[int, int]]:
    """The ports of HTTP and gRPC of a server that has loaded the repository."""
    assert TRITON is not None
    place, http, grpc, metrics = Path(TRITON), *free_ports(3)
    stub = f"{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
    shutil.copy(place / "python_backend_stubs" / stub, place / "backends" / "python")
    # The stub takes the interpreter that its library path and PATH lead to.
    environment = os.environ | {
        "LD_LIBRARY_PATH": f"{sysconfig.get_config_var('LIBDIR')}:{place.parents[1] / 'nvidia_pytriton.libs'}",
        "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
    }
    ports = [f"--{name}-port={port}" for name, port in (("http", http), ("grpc", grpc), ("metrics", metrics))]
    command = [
        place / "bin" / "tritonserver",
        f"--model-repository={repository}",
        f"--backend-directory={place / 'backends'}",
        *ports,
    ]
    with logs.open("wb") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            until_ready(http, process, logs)
            yield http, grpc
        finally:
            process.terminate()
            process.wait(60)


def until_ready(port: int, process: subprocess.Popen[bytes], logs: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, logs.read_text()[-3000:]
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(logs.read_text()[-3000:])


@pytest.mark.skipif(TRITON is None, reason="DLF_TRITON names no server")
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_server_codes_as_the_codec_does(toy_bundle: Path, tmp_path: Path, protocol: str) -> None:
    client = pytest.importorskip(f"tritonclient.{protocol}")
    errors = pytest.importorskip("tritonclient.utils").InferenceServerException
    write(toy_bundle, tmp_path / "repository", threads=1)
    codec = dlf.Codec(tmp_path / "repository" / "bundle", threads=1)
    photographs = [png(300 + 10 * i, 200) for i in range(6)]
    with server(tmp_path / "repository" / "models", tmp_path / "log") as (http, grpc):
        ask = asker(client, http if protocol == "http" else grpc)
        with ThreadPoolExecutor(6) as pool:
            files = list(pool.map(lambda body: ask("dlf_encode", body), photographs))
        assert files == [codec.encode(BytesIO(body)) for body in photographs]
        assert ask("dlf_decode", files[0]) == encode_as(codec.decode(files[0]), ".png")
        assert json.loads(ask("dlf_info", files[0])) == dlf.info(files[0]).to_dict()
        for model, body, name in (
            ("dlf_encode", b"no picture", "ImageError"),
            ("dlf_decode", files[0][:-1], "ChecksumError"),
            ("dlf_info", b"no file", "NotDLFError"),
        ):
            with pytest.raises(errors, match=name):
                ask(model, body)
        assert ask("dlf_encode", photographs[0]) == files[0]  # nothing of it stopped the server
        assert plain_post(http, "dlf_encode", photographs[0]).endswith(files[0])


def asker(client: Any, port: int) -> Callable[[str, bytes], bytes]:
    """Sends a file to a model and returns the file that comes back."""

    def ask(model: str, body: bytes) -> bytes:
        array = np.frombuffer(body, np.uint8)[None]
        tensor = client.InferInput("body", array.shape, "UINT8")
        tensor.set_data_from_numpy(array)
        with client.InferenceServerClient(f"127.0.0.1:{port}") as connection:
            answer: bytes = connection.infer(model, [tensor]).as_numpy("answer").tobytes()
            return answer

    return ask


def plain_post(port: int, model: str, body: bytes) -> bytes:
    """Without a client library: the file is the request, and the answer ends with the file that comes back."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", f"/v2/models/{model}/infer", body, {"Inference-Header-Content-Length": "0"})
    response = connection.getresponse()
    answer = response.read()
    assert response.status == 200, answer
    return answer
