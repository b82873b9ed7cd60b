"""`dlf serve`: the codec as a service over HTTP.

Where it listens goes to stdout; everything else to stderr.
"""

import logging
import os
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from dlf.runtime import bundles
from dlf.runtime.backends.choice import INSTALL
from dlf.runtime.codec import Codec
from dlf.runtime.console import log_to_stderr, tell
from dlf.runtime.errors import DLFError, InvalidArgumentError
from dlf.runtime.extras import needing
from dlf.runtime.libdlf import Limits
from dlf.runtime.options import parse_bytes, takes

_STORE = 512 << 20  # bytes of Ray's memory for bodies and results on their way


@dataclass(frozen=True)
class ServeOptions:
    """The options of `dlf serve`."""

    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 is everywhere.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0 takes a free port.")] = 8000
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, help="Processes that code, each with its own copy of the model.")
    ] = 1
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="CPU threads of each process. By default the cores, shared evenly.")
    ] = None
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Images of one padded size that are coded together.")] = 8
    queue: Annotated[int, typer.Option(metavar="N", min=1, help="Images that may wait or be worked on; then 503.")] = 64
    max_body: Annotated[
        int, typer.Option(metavar="BYTES", parser=parse_bytes, help="The largest body, such as 32M; above it 413.")
    ] = "32M"  # type: ignore[assignment]
    max_pixels: Annotated[int, typer.Option(metavar="N", min=1, help="Refuse images of more pixels.")] = 1 << 24
    max_side: Annotated[int, typer.Option(metavar="N", min=1, help="Refuse images that are wider or higher.")] = 1 << 14
    body_seconds: Annotated[
        float, typer.Option(metavar="N", min=0.1, help="In which a body must come, and an answer be taken.")
    ] = 30
    grace: Annotated[int, typer.Option(metavar="N", min=0, help="Seconds to finish what was taken, after SIGTERM.")] = 60
    model: Annotated[
        str | None, typer.Option(metavar="BUNDLE", envvar="DLF_MODEL", help="The model. By default the built-in one.")
    ] = None
    backend: Annotated[str | None, typer.Option(metavar="|".join(INSTALL), help="By default the fastest here.")] = None
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="With cuda each process has a GPU to itself.")] = "cpu"
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT|auto", help="A Ray cluster for the workers. By default RAY_ADDRESS, or this machine."),
    ] = None
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show what is in use.")] = False


@takes(ServeOptions)
def serve(options: ServeOptions) -> None:
    """Encode and decode over HTTP: POST /encode, /decode and /info, and a page for people. Needs the extra dlf[serve].

    SIGTERM stops it once what it has taken is finished.
    """
    log_to_stderr(logging.INFO if options.verbose else logging.WARNING)
    try:
        with needing("dlf serve", "serve", ("ray", "starlette", "uvicorn", "h11", "prometheus_client")):
            from dlf.runtime.cluster import connected
            from dlf.runtime.serve import engine, server
            from dlf.runtime.serve.app import Service, Settings
        threads = options.threads or max(1, (os.cpu_count() or 1) // options.workers)
        limits = Limits(options.max_pixels, options.max_side)
        model = os.path.abspath(options.model) if options.model else None
        bundles.models(model)  # refuses before Ray starts, which takes long
        open_codec = partial(Codec, model, options.backend, threads, limits=limits, device=options.device)
        gpus = int(options.device.startswith("cuda"))
        settings = Settings(
            options.workers,
            options.batch,
            float("inf") if gpus else Settings.batch_pixels,
            options.queue,
            options.max_body,
            options.body_seconds,
            limits,
        )
        listener = server.listen(options.host, options.port)
        host, port = listener.getsockname()[:2]
        with (
            listener,
            redirect_stdout(sys.stderr),  # Ray writes what its daemons tell to standard output
            connected(options.address, options.workers * threads + 1, _STORE),
            engine.workers(open_codec, limits, options.workers, threads, gpus) as found,
        ):
            app = Service(found.run, found.about, found.ready, settings)
            server.serve(app, listener, options.grace, lambda: print(f"http://{host}:{port}/", file=sys.__stdout__, flush=True))
    except InvalidArgumentError as error:
        raise typer.BadParameter(str(error)) from error
    except (DLFError, OSError) as error:
        tell(f"dlf: {error}")
        raise typer.Exit(1) from error
