"""What a step finds, and how its process tells it: as one line of JSON, the last of its standard output, and by its exit code."""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

PASSED, FAILED, SKIPPED = 0, 1, 77  # exit codes


class SkippedError(Exception):
    """The step cannot be done here; the message says why."""


@dataclass(frozen=True)
class Check:
    """One thing that was checked: its name, whether it is as it should be, and the fact that shows it."""

    name: str
    passed: bool
    fact: str


@dataclass
class Findings:
    """The results of a step.

    Attributes:
        checks: in the order in which they were made.
        figures: what was measured, by name.
        skipped: why the step was not done; None if it was.
    """

    checks: list[Check] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    skipped: str | None = None

    def add(self, name: str, passed: bool, fact: str = "") -> None:
        """Add a check, and print it, so that it is seen even if the process crashes later."""
        self.checks.append(Check(name, bool(passed), fact))
        print(f"{'pass' if passed else 'FAIL'}  {name}  {fact}", flush=True)

    def attempt(self, name: str, work: Callable[[], str]) -> None:
        """Add a check whose fact `work` returns, and which fails with whatever `work` raises."""
        try:
            self.add(name, True, work())
        except SkippedError:
            raise
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            self.add(name, False, f"{type(error).__name__}: {error}")

    @property
    def passed(self) -> bool:
        """Whether there are checks and all passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)


def run_step(work: Callable[[Findings], None]) -> int:
    """Do a step, print its findings as the last line, and return the exit code."""
    findings = Findings()
    try:
        work(findings)
    except SkippedError as reason:
        findings.skipped = str(reason)
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        findings.add("the step itself", False, f"{type(error).__name__}: {error}")
    print(json.dumps(asdict(findings)), flush=True)
    if findings.skipped is not None:
        return SKIPPED
    return PASSED if findings.passed else FAILED


def read(output: str) -> Findings | None:
    """Return the findings at the end of a step's output, before what compute-sanitizer adds; None if there are none."""
    for line in reversed(output.splitlines()):
        try:
            found = json.loads(line)
            return Findings([Check(**check) for check in found["checks"]], found["figures"], found["skipped"])
        except (ValueError, KeyError, TypeError):
            continue
    return None
