"""Hostile requests, DLF_HOSTILE or 100 of each kind, to the command: none ends it, each is answered or left, none is kept."""

import os
import random
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.serve import Site, command, png

pytestmark = pytest.mark.slow
COUNT, MAX_BODY = int(os.environ.get("DLF_HOSTILE", "100")), 1 << 16


def raw(site: Site, data: bytes, leaves: bool = False) -> int:
    """Send bytes and nothing more; return the status of the answer, or 0 if the connection was closed without one.

    A client that leaves says that it sends no more.
    """
    try:
        with socket.create_connection(("127.0.0.1", site.port), 120) as client:
            client.sendall(data)
            if leaves:
                client.shutdown(socket.SHUT_WR)
            answer = client.recv(100)
            return int(answer.split()[1]) if answer else 0
    except (BrokenPipeError, ConnectionResetError):
        return 0


def request(path: str, body: bytes, length: int | None = None) -> bytes:
    """A request; `length` is a false one."""
    return b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), length or len(body), body)


def oversized(site: Site, rng: random.Random) -> int:
    """More bytes than may be, with their number or in chunks; a picture of more pixels."""
    path = rng.choice(["/encode", "/decode", "/info"])
    kind = rng.randrange(3)
    if kind == 0:
        return raw(site, request(path, bytes(100), MAX_BODY + rng.randrange(1, 1 << 40)))
    if kind == 1:
        return raw(site, request(path, bytes(MAX_BODY + rng.randrange(1, 1 << 20))))
    header = bytearray(png(1, 1))
    header[16:24] = rng.randrange(20000, 1 << 31).to_bytes(4, "big") * 2
    return site.post("/encode", bytes(header)).status


def malformed(site: Site, rng: random.Random) -> int:
    """Random bytes; requests that are cut off, or of which some bytes are others."""
    kind = rng.randrange(3)
    if kind == 0:
        return raw(site, rng.randbytes(rng.randrange(1, 3000)))
    whole = bytearray(request("/encode", png(8, 8)))
    if kind == 1:
        return raw(site, bytes(whole[: rng.randrange(1, len(whole))]))
    for _ in range(rng.randrange(1, 6)):
        whole[rng.randrange(60)] = rng.randrange(256)
    return raw(site, bytes(whole))


def of_wrong_types(site: Site, rng: random.Random) -> int:
    """What is no picture or no .dlf file, mutated pictures and files, other methods and parameters."""
    bodies = [
        b"%PDF-1.7",
        b"<html>",
        b'{"a": 1}',
        b"GIF89a",
        b"RIFF\0\0\0\0WEBP",
        b"\xff\xd8\xff\xe0",
        b"\xdf",
        b"II*\0",
        b"\0" * 999,
    ]
    kind = rng.randrange(3)
    if kind == 0:
        return site.post(rng.choice(["/encode", "/decode", "/info", "/decode?preview=1"]), rng.choice(bodies)).status
    if kind == 1:
        mutated = bytearray(png(30, 40))
        for _ in range(rng.randrange(1, 9)):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        return site.post(rng.choice(["/encode", "/decode"]), bytes(mutated)).status
    method, path = rng.choice(["GET", "PUT", "DELETE", "TRACE"]), rng.choice(["/encode", "/nothing", "/decode?format=%00"])
    return site.ask(method, path, rng.choice(bodies)).status


@pytest.fixture(scope="module")
def site(toy_bundle):
    pytest.importorskip("ray")
    options = ("--backend", "openvino", "--threads", "1", "--max-body", str(MAX_BODY), "--body-seconds", "2")
    with command(toy_bundle, *options) as (site, _):
        yield site


@pytest.fixture(autouse=True)
def survives(site):
    """After each test it works, with the same worker, and holds nothing."""
    image = png(30, 40)
    coded = site.post("/encode", image).body
    open_files = site.metric("process_open_fds")
    yield
    assert site.post("/encode", image).body == coded
    assert site.metric("dlf_workers_lost_total") == site.metric("dlf_images_inside") == 0
    while site.metric("process_open_fds") > open_files + 2:  # until it has closed all connections
        pass


@pytest.mark.parametrize(
    ("hostile", "statuses"),
    [
        (oversized, {0, 400, 413}),
        (malformed, {0, 200, 400, 404, 405, 408}),  # a byte that is another may be one of the picture's, or of a header's value
        (of_wrong_types, {200, 400, 404, 405}),
    ],
)
def test_requests(site: Site, hostile: Callable[[Site, random.Random], int], statuses: set[int]):
    with ThreadPoolExecutor(128) as clients:
        found = Counter(clients.map(lambda seed: hostile(site, random.Random(seed)), range(COUNT)))
    assert found.total() == COUNT and set(found) <= statuses, found


def test_slow_ones(site):
    """Bodies and headers that never come, and answers that are not read, from 250 clients at a time."""
    began = [
        b"",
        b"POST /encode HTTP/1.1\r\nHo",
        b"POST /encode HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n",
        b"POST /decode HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"GET /page.js HTTP/1.1\r\nHost: a\r\n\r\n" * 50,
    ]
    answers: Counter[bytes] = Counter()
    for done in range(0, COUNT, 250):
        clients = [socket.create_connection(("127.0.0.1", site.port), 120) for _ in range(min(250, COUNT - done))]
        for at, client in enumerate(clients):
            client.sendall(began[at % len(began)])
        assert site.post("/encode", png(30, 40)).status == 200  # others are served meanwhile
        for client in clients:
            with client:
                while part := client.recv(1 << 16):
                    answers[part[9:12] if part.startswith(b"HTTP/1.1 ") else b"more"] += 1
    assert answers[b"408"] == 2 * COUNT // 5 and set(answers) <= {b"408", b"200", b"more"}, answers
