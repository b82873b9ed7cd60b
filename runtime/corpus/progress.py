"""How far a job is: a bar on a terminal, and else a line from time to time; and each error once."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from threading import Thread
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dlf.runtime.corpus.job import Job
from dlf.runtime.corpus.plan import count
from dlf.runtime.corpus.report import Report

_EVERY = 10.0  # seconds between two lines

_log = logging.getLogger(__name__)


class _Shown:
    def __init__(self, job: Job, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, rate="")
        self._total: int | None = None
        self._told = 0
        self._start = monotonic()
        self._next = self._start + _EVERY
        # The job does not wait for the count: only the estimate does.
        Thread(target=self._count, args=(job,), daemon=True).start()

    def _count(self, job: Job) -> None:
        try:
            self._total = count(job)
        except Exception as error:  # the job itself meets it too, and tells it
            _log.debug("The source was not counted: %s", error)

    def __call__(self, report: Report) -> None:
        """Show a report."""
        for path, error in islice(report.errors.items(), self._told, None):
            self._bar.console.print(f"dlf: {path}: {error}")
        self._told = len(report.errors)
        rate = report.seen / (monotonic() - self._start)
        self._bar.update(self._task, total=self._total, completed=report.seen, rate=f"{rate:.1f} images/s")
        if self._bar.disable and monotonic() >= self._next:
            self._next = monotonic() + _EVERY
            self._bar.console.print(_line(report, self._total, rate))


def _line(report: Report, total: int | None, rate: float) -> str:
    of = f" of {total}" if total is not None else ""
    left = f", {(total - report.seen) / rate:.0f} s left" if total is not None and rate else ""
    return f"dlf: {report.seen}{of} images, {report.failed} failed, {rate:.1f} images/s{left}"


@contextmanager
def shown(job: Job) -> Iterator[_Shown]:
    """What shows the reports of a job that it is called with."""
    # As this command writes it: names may be no text, and standard error may be closed.
    console = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True, quiet=sys.stderr is None)
    columns = (MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=False) as bar:
        yield _Shown(job, bar)
