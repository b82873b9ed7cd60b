"""The service for tests: in this process, with a worker in a thread, or as the command; and requests to it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import dlf
from dlf.runtime.libdlf import Limits
from dlf.runtime.serve.app import Service, Settings
from dlf.runtime.serve.server import Server, listen
from dlf.runtime.serve.worker import Order, Worker

LIMITS = Limits(max_pixels=1 << 20, max_side=1 << 11)


def png(height: int, width: int, seed: int = 0) -> bytes:
    """A picture as a PNG file."""
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Answer:
    """What the service answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, response: HTTPResponse) -> "Answer":
        return cls(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())

    @property
    def error(self) -> str:
        """The class of a refusal's error."""
        return str(self.json["error"])

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Site:
    """A running service: where it is, and in this process what holds its worker back and what the worker got."""

    port: int
    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[tuple[Order, int]] = field(default_factory=list)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    server: Server | None = None

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        with connection.getresponse() as response:
            return Answer.of(response)

    def post(self, path: str, body: Any = b"", **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)

    def metric(self, line: str) -> float:
        """The value of a line of the metrics; 0 if it is not there."""
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        return next((float(each.rpartition(" ")[2]) for each in lines if each.rpartition(" ")[0] == line), 0)


@contextmanager
def serving(bundle: Path, worker: Any = None, grace: int = 60, **settings: Any) -> Iterator[Site]:
    """A service in this process, on a codec of a bundle."""
    listener = listen("127.0.0.1", 0)
    site = Site(listener.getsockname()[1])
    site.gate.set()
    worker = worker or Worker(partial(dlf.Codec, bundle, "openvino", 1, limits=LIMITS, device="cpu"), LIMITS)
    thread = ThreadPoolExecutor(1)

    def work(order: Order, bodies: Sequence[bytes]) -> Any:
        site.batches.append((order, len(bodies)))
        site.begun.release()
        site.gate.wait()
        return worker.run(order, bodies)

    async def run(order: Order, bodies: Sequence[bytes]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(thread, work, order, bodies)

    async def ready() -> bool:
        return site.gate.is_set()

    started = threading.Event()
    app = Service(run, {"model": "toy"}, ready, Settings(limits=LIMITS, **settings))
    site.server = Server(app, grace, started.set)
    serving = threading.Thread(target=site.server.run, args=([listener],))
    serving.start()
    started.wait()
    try:
        yield site
    finally:
        site.gate.set()
        site.server.should_exit = True
        serving.join()
        thread.shutdown()
        listener.close()


@contextmanager
def command(bundle: Path, *options: str) -> Iterator[tuple[Site, subprocess.Popen[str]]]:
    """`dlf serve` as a process of its own."""
    code = "from dlf.runtime.cli import main; main()"
    arguments = [sys.executable, "-c", code, "serve", "--port", "0", "--model", str(bundle), *options]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout and process.stderr
            address = process.stdout.readline()
            assert address, process.stderr.read()
            yield Site(int(address.rstrip("/\n").rpartition(":")[2])), process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
