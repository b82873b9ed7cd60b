"""Steps that take seconds before there is a result, such as the loading of a stage: told when they begin.

They are logged, as libdlf logs them. A command shows them while they last (`dlf.runtime.console`).
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeAlias

from dlf.runtime.formats import DECODER_STAGES, ENCODER_STAGES

# Called with what begins: shows it during the `with` block.
Show: TypeAlias = Callable[[str], AbstractContextManager[Any]]

_show: ContextVar[Show] = ContextVar("show", default=nullcontext)
_log = logging.getLogger(__name__)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Tell that the `with` block takes long, and what it does."""
    _log.debug("%s", what)
    with _show.get()(what):
        yield


@contextmanager
def shown_by(show: Show) -> Iterator[None]:
    """Have the steps of the `with` block shown."""
    token = _show.set(show)
    try:
        yield
    finally:
        _show.reset(token)


def numbered(stage: str) -> str:
    """A stage with its place among those of the encoder or of the decoder: "generator (3 of 3)"."""
    order = ENCODER_STAGES if stage in ENCODER_STAGES else DECODER_STAGES
    return f"{stage} ({order.index(stage) + 1} of {len(order)})"
