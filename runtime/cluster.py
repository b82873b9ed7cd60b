"""Connecting to Ray: a cluster, or this machine alone. Whoever needs Ray imports it from here, with its settings made before."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dlf.runtime.errors import BackendFailedError

# Before Ray is imported: it sends nothing of its use anywhere, and leaves GPUs to the workers that ask for one.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

__all__ = ["LEAST_STORE", "connected", "ray"]

LEAST_STORE = 80 << 20  # bytes of Ray's memory for objects: the least that it takes


@contextmanager
def connected(address: str | None, cpus: int, store: int = LEAST_STORE) -> Iterator[None]:
    """Be connected to a cluster: at `address`, at RAY_ADDRESS, or on this machine alone.

    Of this machine alone Ray is told that it has so many CPUs, and takes so many bytes to store objects in.

    Raises:
        BackendFailedError: there is no cluster at that address, or Ray does not start.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    _require_listener(address)
    alone = address in (None, "local")
    local: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": store, "include_dashboard": False} if alone else {}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except Exception as error:  # ConnectionError, ValueError and others
        raise BackendFailedError(
            f"Ray cannot be used at {address or 'this machine'} ({type(error).__name__}: {error})."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str | None) -> None:
    """Refuse HOST:PORT where nothing listens; Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition("/")[2].rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise BackendFailedError(f"There is no Ray cluster at {address} ({error}).") from error
