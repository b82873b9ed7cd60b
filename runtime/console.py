"""Standard error of the command: lines, above a progress bar where there is one. Rich, which draws it, is imported only then."""

import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_above_bar: "Console | None" = None


def tell(text: str) -> None:
    """Write a line to standard error."""
    if _above_bar is not None:
        _above_bar.print(text)
    elif sys.stderr is not None:  # which may be closed
        print(text, file=sys.stderr)


def log_to_stderr(level: int) -> None:
    """Write what dlf logs from a level on, as such lines."""
    handler = logging.Handler()
    handler.emit = lambda record: tell(f"dlf: {record.getMessage()}")  # type: ignore[method-assign]
    logger = logging.getLogger("dlf")
    logger.handlers = [handler]
    logger.setLevel(level)


def tracked(items: list[str]) -> Iterator[str]:
    """Yield the items; on a terminal, with a progress bar if there are several."""
    global _above_bar
    if len(items) == 1 or sys.stderr is None or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
    columns = (MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        _above_bar = console
        try:
            yield from bar.track(items)
        finally:
            _above_bar = None
