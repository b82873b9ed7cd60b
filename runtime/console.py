"""Standard error of the command: lines, and below them, on a terminal, what is being done, which Rich draws, imported then."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dlf.runtime import progress

if TYPE_CHECKING:
    from rich.console import Console

_above: "Console | None" = None  # what is being done


def tell(text: str) -> None:
    """Write a line to standard error."""
    if _above is not None:
        _above.print(text)
    elif sys.stderr is not None:  # which may be closed
        print(text, file=sys.stderr)


def log_to_stderr(level: int) -> None:
    """Write what dlf logs from a level on, as such lines."""
    handler = logging.Handler()
    handler.emit = lambda record: tell(f"dlf: {record.getMessage()}")  # type: ignore[method-assign]
    logger = logging.getLogger("dlf")
    logger.handlers = [handler]
    logger.setLevel(level)


def shows_progress(*, quiet: bool = False, as_json: bool = False) -> bool:
    """Whether a command shows what it is doing: on a terminal, unless it is to be quiet, or its JSON goes there too."""
    stderr, stdout = (stream is not None and stream.isatty() for stream in (sys.stderr, sys.stdout))
    return stderr and not quiet and not (as_json and stdout)


def tracked(items: list[str]) -> Iterator[str]:
    """Yield the items, and show the steps meanwhile that take long; if there are several items, with a progress bar."""
    if len(items) == 1:
        with showing_steps():
            yield from items
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with (
        _lines_above() as console,
        Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar,
    ):
        task = bar.add_task("", total=len(items))

        @contextmanager
        def beside_bar(what: str) -> Iterator[None]:
            bar.update(task, description=what, refresh=True)
            try:
                yield
            finally:
                bar.update(task, description="")

        with progress.shown_by(beside_bar):
            for item in items:
                yield item
                bar.advance(task)


@contextmanager
def showing_steps() -> Iterator[None]:
    """Show the steps that take long, each while it lasts (`dlf.runtime.progress`)."""
    with progress.shown_by(_status):
        yield


@contextmanager
def _status(what: str) -> Iterator[None]:
    if _above is not None:  # a step of a step
        yield
        return
    with _lines_above() as console, console.status(what):
        yield


@contextmanager
def _lines_above() -> Iterator["Console"]:
    """A console to draw on, with the lines that are told meanwhile above."""
    global _above
    from rich.console import Console

    _above = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
    try:
        yield _above
    finally:
        _above = None
