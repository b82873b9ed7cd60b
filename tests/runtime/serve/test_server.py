"""The server: connections that bring nothing, and its end."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from helpers.serve import png, serving

from dlf.runtime.serve import server


def test_a_connection_without_a_request_is_closed(toy_bundle, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.2)
    with serving(toy_bundle) as site, socket.create_connection(("127.0.0.1", site.port), 60) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1000).endswith(b'{"status":"ok"}')
        client.sendall(b"GET /health HTTP/1.1\r\nHo")  # the next one is never complete
        assert client.recv(1000) == b""
    with serving(toy_bundle) as site, socket.create_connection(("127.0.0.1", site.port), 60) as client:
        assert client.recv(1000) == b""


def test_what_was_taken_is_finished_and_nothing_more_is_taken(toy_bundle):
    with serving(toy_bundle, batch=1) as site, ThreadPoolExecutor(3) as clients:
        site.gate.clear()
        taken = [clients.submit(site.post, "/encode", png(20, 20)) for _ in range(3)]
        while site.metric("dlf_images_inside") < 3:
            pass
        site.server.should_exit = True
        with suppress(ConnectionRefusedError, ConnectionResetError):
            while True:  # until it listens no more
                site.ask("GET", "/health")
        site.gate.set()
        assert [answer.result().status for answer in taken] == [200, 200, 200]


def test_what_is_not_finished_in_time_is_given_up(toy_bundle):
    with serving(toy_bundle, grace=0) as site, ThreadPoolExecutor(1) as clients:
        site.gate.clear()
        taken = clients.submit(site.post, "/encode", png(20, 20))
        site.begun.acquire()
        site.server.should_exit = True
        assert (taken.result().status, taken.result().error) == (503, "Stopped")
