"""The bar of an export: drawn on a terminal, with an estimate once some work is done, and nowhere else; its steps are logged."""

import logging
from io import StringIO

import pytest
from rich.console import Console

from dlf.export.progress import bar


def drawn(*, terminal: bool) -> str:
    """What the bar of some work writes."""
    file = StringIO()
    with bar(Console(file=file, force_terminal=terminal, width=120)) as progress:
        progress.expect(4)
        progress("calibrating")
        progress.advance(3)
        progress("measuring")
    return file.getvalue()


def test_a_terminal_is_shown_the_step_and_the_share_that_is_done():
    written = drawn(terminal=True)
    assert "calibrating" in written
    assert "measuring" in written
    assert "75%" in written


def test_what_is_no_terminal_gets_nothing():
    assert drawn(terminal=False).strip() == ""


def test_steps_are_logged_as_they_begin(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "dlf"):
        drawn(terminal=False)
    assert caplog.messages == ["calibrating", "measuring"]
