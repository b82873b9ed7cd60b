"""The HTTP server: uvicorn, and a limit of time for requests to begin."""

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0  # in which a connection must have brought a request, the first and each next
_HEADER_BYTES = 1 << 16


class _Protocol(H11Protocol):
    """Closes connections that bring no request in time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect_request()

    def _expect_request(self) -> None:
        self.loop.call_later(HEADER_SECONDS, self._close_without, self.cycle)

    def _close_without(self, before: object) -> None:
        if self.cycle is before and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()


class Server(uvicorn.Server):
    """A server of one ASGI application; `should_exit` stops it once what it has taken is finished.

    Args:
        app: the application.
        grace: seconds to finish in; then what is left is given up.
        started: called once connections are taken.
    """

    def __init__(self, app: Any, grace: int, started: Callable[[], None]) -> None:
        self._tell_started = started
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                h11_max_incomplete_event_size=_HEADER_BYTES,
                timeout_keep_alive=int(HEADER_SECONDS),
                timeout_graceful_shutdown=grace,
                backlog=1024,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server."""
        await super().startup(sockets)
        self._tell_started()


def listen(host: str, port: int) -> socket.socket:
    """Take a port, on which no connection is answered yet; 0 is any that is free. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    return listener


def serve(app: Any, listener: socket.socket, grace: int, started: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; then take no more connections, finish what was taken, and return. See `Server`."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises the signal once more when it has ended
    Server(app, grace, started).run(sockets=[listener])
