"""The workers on Ray Serve: so many processes with a codec each, which it starts again when they end.

Serve's own HTTP server is not used: limits, Retry-After and batches of one padded size are `app`'s, which calls the workers by
Serve's handle.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dlf.runtime.cluster import ray
from dlf.runtime.codec import Codec
from dlf.runtime.errors import BackendFailedError, DLFError
from dlf.runtime.libdlf import Limits
from dlf.runtime.serve.batches import Run
from dlf.runtime.serve.worker import Order, Result, Worker

_APPLICATION = "dlf"


@dataclass(frozen=True)
class Workers:
    """The workers.

    Attributes:
        run: codes a batch on a worker that is free.
        about: what a worker says of its codec.
        ready: whether all are there.
    """

    run: Run
    about: dict[str, Any]
    ready: Callable[[], Awaitable[bool]]


@contextmanager
def workers(open_codec: Callable[[], Codec], limits: Limits, count: int, cpus: int, gpus: float) -> Iterator[Workers]:
    """Start `count` workers on the cluster that this process is connected to, each of which takes so many CPUs and GPUs.

    Raises:
        DLFError: a worker cannot open its codec: what opening it raises; or no worker starts.
    """
    from ray import serve  # which takes long to import

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    deployment: Any = serve.deployment(
        Worker,
        name="Worker",
        num_replicas=count,
        max_ongoing_requests=1,
        graceful_shutdown_wait_loop_s=0.1,
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        logging_config={"log_level": "ERROR"},
    )
    try:
        serve.start(http_options={"location": "NoServer"}, logging_config={"log_level": "ERROR"})
        handle = serve.run(deployment.bind(open_codec, limits), name=_APPLICATION, route_prefix=None)
        about = [call.result() for call in [handle.start.remote() for _ in range(count)]]
    except ray.exceptions.RayTaskError as error:  # what the worker raised
        cause = error.cause if isinstance(error.cause, DLFError) else BackendFailedError(f"No worker starts: {error.cause}.")
        raise cause from error
    except (ray.exceptions.RayError, RuntimeError) as error:
        raise BackendFailedError(f"No worker starts: {error}.") from error

    async def run(order: Order, bodies: Sequence[bytes]) -> tuple[list[Result], dict[str, float]]:
        found: tuple[list[Result], dict[str, float]] = await handle.run.remote(order, bodies)
        return found

    async def ready() -> bool:
        status = await asyncio.to_thread(serve.status)
        return bool(status.applications[_APPLICATION].status == "RUNNING")

    try:
        yield Workers(run, about[0], ready)
    finally:
        serve.shutdown()
