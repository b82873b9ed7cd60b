"""`dlf corpus`: encode, decode and verify trees of images on Ray.

The report goes to stdout, as one JSON object; progress and errors go to stderr.
"""

import json
import logging
import os
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from dlf.runtime.backends.choice import INSTALL
from dlf.runtime.codec import Codec
from dlf.runtime.console import log_to_stderr, tell
from dlf.runtime.errors import DLFError, InvalidArgumentError
from dlf.runtime.extras import needing
from dlf.runtime.options import takes
from dlf.runtime.streams import printing

if TYPE_CHECKING:
    from dlf.runtime.corpus.job import Job, Operation

app = typer.Typer(
    help="Encode, decode and verify whole trees of images, on this machine or a Ray cluster. Needs the extra dlf[ray].",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Place = Annotated[str, typer.Argument(metavar="SRC", help="A folder: a path, s3://, gs:// or what else pyarrow or fsspec knows.")]
Target = Annotated[str, typer.Argument(metavar="DST", help="The folder of the results, likewise.")]


@dataclass(frozen=True)
class CorpusOptions:
    """The options of all commands on corpora."""

    source: Place
    target: Target
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT|auto", help="The Ray cluster. By default RAY_ADDRESS, or else this machine alone."),
    ] = None
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes that work. By default as many as there is room for.")
    ] = None
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="CPU threads of each process.")] = 1
    batch: Annotated[
        int, typer.Option(metavar="N", min=1, help="Images of one padded size that go through the model together.")
    ] = 1
    shard: Annotated[int, typer.Option(metavar="N", min=1, help="Images in a shard, the unit of work.")] = 16
    parquet: Annotated[bool, typer.Option("--parquet", help="Results are rows of Parquet shards, not files.")] = False
    model: Annotated[
        str | None,
        typer.Option(
            metavar="BUNDLE",
            envvar="DLF_MODEL",
            help="The model, at this path on all nodes. By default the built-in one.",
        ),
    ] = None
    backend: Annotated[str | None, typer.Option(metavar="|".join(INSTALL), help="By default each node's fastest.")] = None
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="With cuda each process has a GPU to itself.")] = "cpu"
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show what is in use.")] = False


@app.command(
    epilog="""Examples:

    \b
    dlf corpus encode photos coded                  writes coded/A/B.jpg.dlf for photos/A/B.jpg
    dlf corpus encode s3://in/photos s3://out/coded --parquet --address auto
    dlf corpus encode photos coded --concurrency 8 --threads 2 > report.json"""
)
@takes(CorpusOptions)
def encode(options: CorpusOptions) -> None:
    """Encode all images below SRC.

    What is done already is not done again: a result is kept if its source has the size and the SHA-256 that it was made from, and
    the model is the same. An image that cannot be encoded is a row with its error, and the exit code is 1.
    """
    _run("encode", options)


@app.command(
    epilog="""Examples:

    \b
    dlf corpus decode coded pictures                writes pictures/A/B.jpg.png for coded/A/B.jpg.dlf
    dlf corpus decode s3://out/coded pictures       also if encode wrote it with --parquet"""
)
@takes(CorpusOptions)
def decode(options: CorpusOptions) -> None:
    """Decode all .dlf files below SRC, and those in Parquet files, to PNG."""
    _run("decode", options)


@app.command(
    epilog="""Examples:

    \b
    dlf corpus verify photos coded"""
)
@takes(CorpusOptions)
def verify(options: CorpusOptions) -> None:
    """Check that each image below SRC has its result in DST.

    Its source must be what it was made from, the result must be what was written, and must decode to a picture of that size.
    """
    _run("verify", options)


def _run(operation: "Operation", options: CorpusOptions) -> None:
    log_to_stderr(logging.INFO if options.verbose else logging.WARNING)
    try:
        with needing("dlf corpus", "ray", ("ray", "pyarrow")):
            from dlf.runtime import cluster
            from dlf.runtime.corpus import engine
            from dlf.runtime.corpus.progress import shown
        job = _job(operation, options)
        gpus = int(options.device.startswith("cuda"))
        cpus = max(os.cpu_count() or 1, (options.concurrency or 1) * options.threads)
        # Ray writes what its daemons tell to standard output, which is the report's.
        with redirect_stdout(sys.stderr), cluster.connected(options.address, cpus), shown(job) as show:
            report = engine.run(job, options.concurrency, options.threads, gpus, show)
    except InvalidArgumentError as error:
        raise typer.BadParameter(str(error)) from error
    except (DLFError, OSError) as error:
        tell(f"dlf: {error}")
        raise typer.Exit(1) from error
    with printing():
        print(json.dumps(report.to_dict()))
    if report.failed:
        raise typer.Exit(1)


def _job(operation: "Operation", options: CorpusOptions) -> "Job":
    from dlf.runtime.corpus.job import Job
    from dlf.runtime.corpus.storage import Storage

    source, target = Storage(options.source), Storage(options.target)
    if options.parquet and operation != "verify" and f"{target.uri.rstrip('/')}/".startswith(f"{source.uri.rstrip('/')}/"):
        raise InvalidArgumentError(
            f"{target.uri} lies in {source.uri}: the next run would take its shards for sources; use another."
        )
    model = options.model if options.model is None else os.path.abspath(options.model)
    open_codec = partial(Codec, model, options.backend, options.threads, device=options.device)
    return Job(operation, source, target, open_codec, options.parquet, options.batch, options.shard)
