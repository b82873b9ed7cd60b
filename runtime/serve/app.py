"""The service's HTTP interface: an ASGI application.

    POST /encode    an image file -> a .dlf file
    POST /decode    a .dlf file -> a picture; ?format=png|jpg|webp, ?preview=1
    POST /info      a .dlf file -> JSON
    GET  /info      the model and the limits, in JSON
    GET  /health, /ready, /metrics, and / with a page for people

Refusals are JSON with `error`, the class of the error, and `message`. 400: the body is to blame; 408: it came too slowly; 413: it
is too large; 503, with Retry-After: too much waits; 500: the service is to blame.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from dlf.runtime.errors import DLFError, InvalidArgumentError
from dlf.runtime.formats import LARGE_BATCH, tiles
from dlf.runtime.info import info
from dlf.runtime.libdlf import Limits
from dlf.runtime.pillow import open_unlimited
from dlf.runtime.serve.batches import Batches, FullError, Run, Size
from dlf.runtime.serve.metrics import Metrics
from dlf.runtime.serve.worker import Failed, Order

T = TypeVar("T")

_log = logging.getLogger(__name__)
_PAGE = Path(__file__).parent / "page"
_FORMATS = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
_SIMPLE = ("PNG", "JPEG", "BMP", "TIFF")  # whose headers Pillow reads in Python: no library can fail on them here
_HEADERS = {"x-content-type-options": "nosniff", "content-security-policy": "default-src 'self'; img-src 'self' blob: data:"}

Answer: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Settings:
    """What the service takes.

    Attributes:
        workers: batches that are coded at a time.
        batch: images that go through the model together.
        batch_pixels: their pixels, padded; a larger image goes alone.
        queue: images that may wait or be worked on.
        max_body: bytes of a body. All bodies together may have `queue` times as many.
        body_seconds: in which a body must have come, and an answer must have been taken.
        limits: the largest image.
    """

    workers: int = 1
    batch: int = 8
    batch_pixels: float = LARGE_BATCH - 1  # from there on, stages on the CPU are loaded for each batch
    queue: int = 64
    max_body: int = 32 << 20
    body_seconds: float = 30
    limits: Limits = field(default_factory=Limits)


class RefusedError(Exception):
    """A request that is refused before it is worked on."""

    def __init__(self, status: int, name: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.name, self.headers = status, name, headers


class Service:
    """Answers requests; an ASGI application.

    Args:
        run: codes a batch, see `batches.Run`.
        about: the model, as `GET /info` tells it.
        ready: whether all workers are there.
        settings: what the service takes.
    """

    def __init__(self, run: Run, about: dict[str, Any], ready: Callable[[], Awaitable[bool]], settings: Settings) -> None:
        self._about, self._ready, self._settings = about, ready, settings
        self._metrics = Metrics()
        self._batches = Batches(run, settings.workers, settings.batch, settings.batch_pixels, settings.queue, self._metrics)
        self._held = 0  # bytes of bodies
        self._app = Starlette(
            routes=[
                self._route("/encode", self._encode, "POST"),
                self._route("/decode", self._decode, "POST"),
                self._route("/info", self._info, "POST"),
                self._route("/info", self._tell, "GET"),
                self._route("/health", self._alive, "GET"),
                self._route("/ready", self._is_ready, "GET"),
                self._route("/metrics", self._measured, "GET"),
                self._route("/", self._page("index.html"), "GET"),
                *(self._route(f"/{name}", self._page(name), "GET") for name in ("page.css", "page.js")),
            ],
            exception_handlers={HTTPException: _http_error},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. A client that does not take its answer in time is left."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._settings.body_seconds):
                await send(message)

        try:
            await self._app(scope, receive, send_in_time)
        except TimeoutError:
            _log.info("A client did not take its answer.")

    def _route(self, path: str, answer: Answer, method: str) -> Route:
        """A route whose requests are counted, and whose errors are told in JSON."""

        async def counted(request: Request) -> Response:
            start = perf_counter()
            response = await _refusals(answer, request)
            response.headers.update(_HEADERS)
            self._metrics.requests.labels(path, response.status_code).inc()
            self._metrics.request_seconds.labels(path).observe(perf_counter() - start)
            self._metrics.sent.labels(path).inc(len(response.body) if hasattr(response, "body") else 0)
            return response

        return Route(path, counted, methods=[method])

    async def _encode(self, request: Request) -> Response:
        async with self._body(request) as body:
            size = await asyncio.to_thread(_padded_size, body)
            return await self._coded(request, Order("encode"), size, body, "image/x-dlf")

    async def _decode(self, request: Request) -> Response:
        suffix = request.query_params.get("format", "png")
        if suffix not in _FORMATS:
            raise InvalidArgumentError(f"format is {suffix!r}; it must be one of {', '.join(_FORMATS)}.")
        preview = request.query_params.get("preview", "0")
        if preview not in ("0", "1"):
            raise InvalidArgumentError(f"preview is {preview!r}; it must be 0 or 1.")
        order = Order("decode", f".{suffix}", preview == "1")
        async with self._body(request) as body:
            # Of a whole file everything is checked here that needs no model; then no other waits for what will be refused.
            found = None if order.preview else info(body, limits=self._settings.limits)
            size = tiles(found.height, found.width) if found else None
            return await self._coded(request, order, size, body, _FORMATS[suffix])

    async def _info(self, request: Request) -> Response:
        async with self._body(request) as body:
            return JSONResponse(info(body, limits=self._settings.limits).to_dict())

    async def _tell(self, request: Request) -> Response:
        settings = self._settings
        return JSONResponse({**self._about, "limits": {**asdict(settings.limits), "max_body": settings.max_body}})

    async def _alive(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _is_ready(self, request: Request) -> Response:
        if await self._ready():
            return JSONResponse({"status": "ok"})
        raise RefusedError(503, "NotReady", "A worker is being started.", {"retry-after": "5"})

    async def _measured(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    def _page(self, name: str) -> Answer:
        async def page(request: Request) -> Response:
            return FileResponse(_PAGE / name)

        return page

    async def _coded(self, request: Request, order: Order, size: Size, body: bytes, media_type: str) -> Response:
        result = await _unless_left(request, self._batches.code(order, size, body))
        if isinstance(result, Failed):
            return _error(400 if result.by_request else 500, result.name, result.message)
        return Response(result, media_type=media_type)

    @asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """The request's body, counted while it is in memory."""
        chunks: list[bytes] = []
        size = 0
        self._check(int(request.headers.get("content-length", 0)))
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    self._held += len(chunk)
                    self._check(size)
                    chunks.append(chunk)
            self._metrics.received.labels(request.url.path).inc(size)
            yield b"".join(chunks)
        finally:
            self._held -= size

    def _check(self, size: int) -> None:
        settings = self._settings
        if size > settings.max_body:
            raise RefusedError(413, "BodyTooLarge", f"A body may have {settings.max_body} bytes.")
        if self._held > settings.queue * settings.max_body:
            raise FullError(1)


async def _refusals(answer: Answer, request: Request) -> Response:
    """The answer to a request, which is the error's if there is one."""
    try:
        return await answer(request)
    except DLFError as error:
        failed = Failed.of(error)
        return _error(400 if failed.by_request else 500, failed.name, failed.message)
    except RefusedError as error:
        return _error(error.status, error.name, str(error), error.headers)
    except FullError as error:
        return _error(503, "Full", str(error), {"retry-after": str(error.retry_after)})
    except TimeoutError:
        return _error(408, "TooSlow", "The body did not come in time.", {"connection": "close"})
    except ClientDisconnect:
        return _error(400, "Disconnected", "The client left.")
    except asyncio.CancelledError:  # the server stops, and its grace is over
        return _error(503, "Stopped", "The service has stopped.", {"retry-after": "5"})
    except Exception:
        _log.exception("unexpected")
        return _error(500, "InternalError", "The service has an error; its log tells which.")


async def _unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What comes of the work, which is cancelled if the client leaves. Raises ClientDisconnect then."""
    done, left = asyncio.create_task(work), asyncio.ensure_future(request.receive())  # after the body only its leaving comes
    try:
        await asyncio.wait({done, left}, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise ClientDisconnect
        return done.result()
    finally:
        done.cancel()
        left.cancel()


def _error(status: int, name: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": name, "message": message}, status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    names = {404: "NotFound", 405: "MethodNotAllowed"}
    name = names.get(error.status_code, "Refused")
    return _error(error.status_code, name, error.detail, dict(error.headers or {}))


def _padded_size(body: bytes) -> Size:
    """The tiles of a picture, by its header, or None: what goes into one batch with it. A guess costs time and nothing else."""
    try:
        with open_unlimited(BytesIO(body), _SIMPLE) as picture:
            return tiles(picture.height, picture.width)
    except Exception:  # the worker tells what it is
        return None
