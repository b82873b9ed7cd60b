"""A worker: holds one open codec and codes batches. It knows nothing of Ray, which runs it in a process of its own."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from time import perf_counter
from typing import Any, Literal, TypeAlias

import numpy as np

from dlf.runtime.codec import Codec
from dlf.runtime.errors import BackendFailedError, BundleBrokenError, DLFError
from dlf.runtime.images import encode_as, load
from dlf.runtime.libdlf import Limits

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What is to be done with a body: `suffix` is that of a decoded picture's format."""

    operation: Literal["encode", "decode"]
    suffix: str = ".png"
    preview: bool = False


@dataclass(frozen=True)
class Failed:
    """Why there is no result: the class of the error, its message, and whether the body is to blame or the service."""

    name: str
    message: str
    by_request: bool

    @classmethod
    def of(cls, error: Exception) -> "Failed":
        """Tell of an error."""
        by_request = isinstance(error, DLFError) and not isinstance(error, (BackendFailedError, BundleBrokenError))
        return cls(type(error).__name__, str(error), by_request)


Result: TypeAlias = bytes | Failed


class Worker:
    """Codes batches with one codec.

    Args:
        open_codec: called once.
        limits: the largest image that is read.
    """

    def __init__(self, open_codec: Callable[[], Codec], limits: Limits) -> None:
        self._open_codec, self._limits = open_codec, limits
        self._codec: Codec | None = None

    def start(self) -> dict[str, Any]:
        """Open the codec, load its stages, and say what it is.

        Raises DLFError: the codec cannot be opened, or does not code.
        """
        codec = self._open()
        codec.decode(codec.encode(np.zeros((1, 1, 3), np.uint8)))
        return {
            "model": codec.bundle.name,
            "fingerprint": codec.bundle.fingerprint,
            "precision": codec.bundle.precision,
            "licence": codec.bundle.license,
            "backend": codec.backend.name,
            "device": codec.backend.device,
            "limits": asdict(self._limits),
        }

    def run(self, order: Order, bodies: Sequence[bytes]) -> tuple[list[Result], dict[str, float]]:
        """Code a batch. Return a result for each body, and the seconds that each step took.

        A body that cannot be coded costs no other: if a batch fails, its bodies go one by one.
        """
        seconds: dict[str, float] = {}
        return self._run(order, list(bodies), seconds), seconds

    def _open(self) -> Codec:
        self._codec = self._codec or self._open_codec()
        return self._codec

    def _run(self, order: Order, bodies: list[bytes], seconds: dict[str, float]) -> list[Result]:
        try:
            return list((self._encode if order.operation == "encode" else self._decode)(order, bodies, seconds))
        except Exception as error:
            if len(bodies) > 1:
                return [result for body in bodies for result in self._run(order, [body], seconds)]
            if not isinstance(error, DLFError):
                _log.exception("unexpected")
            return [Failed.of(error)]

    def _encode(self, order: Order, bodies: list[bytes], seconds: dict[str, float]) -> list[bytes]:
        start = perf_counter()
        pictures = [load(BytesIO(body), self._limits) for body in bodies]
        _add(seconds, {"read": perf_counter() - start})
        codec = self._open()
        files = codec.encode_many(pictures, len(bodies)) if len(bodies) > 1 else [codec.encode(pictures[0])]
        _add(seconds, codec.timings)
        return files

    def _decode(self, order: Order, bodies: list[bytes], seconds: dict[str, float]) -> list[bytes]:
        codec, detail = self._open(), not order.preview
        many = len(bodies) > 1
        pictures = codec.decode_many(bodies, len(bodies), detail=detail) if many else [codec.decode(bodies[0], detail=detail)]
        _add(seconds, codec.timings)
        start = perf_counter()
        files = [encode_as(picture, order.suffix) for picture in pictures]
        _add(seconds, {"write": perf_counter() - start})
        return files


def _add(total: dict[str, float], seconds: dict[str, float]) -> None:
    for step, taken in seconds.items():
        total[step] = total.get(step, 0) + taken
