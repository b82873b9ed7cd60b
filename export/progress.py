"""How far an export is: what it does, and how much of its work is done."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

from rich import progress as rich
from rich.console import Console

from dlf.runtime.formats import tiles
from dlf.runtime.images import Pixels

log = logging.getLogger(__name__)

ESTIMATED_BY = 300  # seconds: the time that is left is estimated by the speed in the last of them


class Progress:
    """Told of the work; this one keeps it to itself.

    Work is counted in units of about one time: a tile that one stage computes.

    Attributes:
        left: units that are expected and not done.
    """

    left = 0.0

    def __call__(self, what: str) -> None:
        """What begins now."""

    def expect(self, units: float) -> None:
        """There is so much more to do than was told before."""
        self.left += units

    def advance(self, units: float) -> None:
        """So much is done."""
        self.left -= units

    @contextmanager
    def at_most(self, units: float) -> Iterator[None]:
        """There is so much more to do, or less: when it ends, what it did not take is no longer expected."""
        before = self.left
        self.expect(units)
        yield
        self.expect(before - self.left)


UNSEEN = Progress()


class _Bar(Progress):
    def __init__(self, bar: rich.Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("loading", total=None)

    def __call__(self, what: str) -> None:
        log.info("%s", what)
        self._bar.update(self._task, description=what, refresh=True)

    def expect(self, units: float) -> None:
        super().expect(units)
        self._bar.update(self._task, total=(self._bar.tasks[0].total or 0) + units)

    def advance(self, units: float) -> None:
        super().advance(units)
        self._bar.update(self._task, advance=units)


@contextmanager
def bar(console: Console) -> Iterator[Progress]:
    """Draw the progress on a terminal, with an estimate of the time that is left; elsewhere nothing. Steps are logged too."""
    columns = (
        rich.SpinnerColumn(),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.description}"),
    )
    shown = console.is_terminal
    with rich.Progress(*columns, console=console, transient=True, disable=not shown, speed_estimate_period=ESTIMATED_BY) as drawn:
        yield _Bar(drawn)


def tiles_of(pixels: Pixels) -> int:
    """How many tiles cover an image, (H, W, 3)."""
    return prod(tiles(*pixels.shape[:2]))
