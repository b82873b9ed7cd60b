"""Runs the steps one after the other, each in a process of its own with a time limit."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from dlf.benchmarks.gpu_check.findings import SKIPPED, Check, read

TAIL = 4000  # characters of a step's output that are kept


@dataclass(frozen=True)
class Step:
    """A step.

    Attributes:
        name: of the step.
        command: what does it.
        seconds: the time limit.
        lacks: why it cannot be done here, in words; None if it can.
    """

    name: str
    command: Sequence[str]
    seconds: float
    lacks: str | None = None


@dataclass(frozen=True)
class Result:
    """What became of a step.

    Attributes:
        name: of the step.
        verdict: "pass", "FAIL", "timeout" or "skip".
        seconds: that it took.
        fact: the result in a few words.
        checks, figures: its findings, see `findings.Findings`.
        output: the end of what it printed.
    """

    name: str
    verdict: str
    seconds: float
    fact: str
    checks: list[Check] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    output: str = ""


def run(step: Step) -> Result:
    """Do a step. Whatever happens to its process is a result, not an error."""
    if step.lacks is not None:
        return Result(step.name, "skip", 0.0, step.lacks)
    start = perf_counter()
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        # A session of its own: the time limit is also that of the processes that it starts.
        process = subprocess.Popen(step.command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code: int | None = process.wait(step.seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        seconds = perf_counter() - start
        file.seek(0)
        output = file.read()
    return _result(step, code, seconds, output)


def _result(step: Step, code: int | None, seconds: float, output: str) -> Result:
    found = read(output)
    checks = found.checks if found else []
    figures = found.figures if found else {}
    failed = [check for check in checks if not check.passed]
    if code is None:
        verdict, fact = "timeout", f"stopped after {step.seconds:.0f} s"
    elif code == SKIPPED and found and found.skipped:
        verdict, fact = "skip", found.skipped
    elif code:
        how = f"exit code {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
        verdict = "FAIL"
        fact = _last_line(output) or how
        if failed:
            fact = f"{len(failed)} of {len(checks)} checks, the first: {failed[0].name}: {failed[0].fact}"
    else:
        verdict, fact = "pass", f"{len(checks)} checks" if found else _last_line(output)
    return Result(step.name, verdict, seconds, fact, checks, figures, output[-TAIL:])


def _last_line(output: str) -> str:
    return next((line for line in reversed(output.splitlines()) if line.strip()), "")


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a step of this package."""
    return [sys.executable, "-m", f"{__package__}.{name}", *arguments]
