"""The processes of the steps: what becomes of them, the table, the JSON file, and the exit code."""

import json
import os
import sys

import pytest
from typer.testing import CliRunner

from dlf.benchmarks.gpu_check import __main__ as command
from dlf.benchmarks.gpu_check.findings import FAILED, PASSED, SKIPPED, Findings, SkippedError, read, run_step
from dlf.benchmarks.gpu_check.runner import Step, run
from dlf.runtime.gpu import driver


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def step_of(work: str) -> list[str]:
    return python(
        f"from dlf.benchmarks.gpu_check.findings import *\nimport sys\ndef work(findings):\n    {work}\nsys.exit(run_step(work))"
    )


@pytest.mark.parametrize(
    ("command", "verdict", "fact"),
    [
        (step_of("findings.add('a', True); findings.figures['ms'] = 3"), "pass", "1 checks"),
        (
            step_of("findings.add('a', True); findings.add('b', False, 'off by one')"),
            "FAIL",
            "1 of 2 checks, the first: b: off by one",
        ),
        (step_of("raise SkippedError('no GPU')"), "skip", "no GPU"),
        (step_of("raise ValueError('odd')"), "FAIL", "1 of 1 checks, the first: the step itself: ValueError: odd"),
        (step_of("pass"), "FAIL", None),
        (python("print('12 passed')"), "pass", "12 passed"),
        (python("import sys; print('2 failed'); sys.exit(1)"), "FAIL", "2 failed"),
        (python("import sys; sys.exit(77)"), "FAIL", "exit code 77"),
        (python("import os; os.kill(os.getpid(), 11)"), "FAIL", "killed by SIGSEGV"),
    ],
)
def test_what_becomes_of_a_step(command, verdict, fact):
    result = run(Step("a step", command, 60))
    assert result.verdict == verdict
    if fact:
        assert result.fact == fact


def test_a_step_that_hangs_is_stopped_with_its_children(tmp_path):
    """Both hold a pipe open, whose reader sees its end once they are gone."""
    fifo = tmp_path / "held"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    code = f"""
import os, subprocess, sys, time
held = os.open({str(fifo)!r}, os.O_WRONLY)
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'], pass_fds=[held])
os.write(held, b'held')
print('so far', flush=True)
time.sleep(3600)
"""
    result = run(Step("hangs", python(code), 5))
    assert (result.verdict, result.fact) == ("timeout", "stopped after 5 s")
    assert result.output == "so far\n"
    os.set_blocking(reader, True)
    with open(reader, "rb") as pipe:
        assert pipe.read() == b"held"


def test_a_step_that_lacks_something_is_not_started():
    result = run(Step("absent", ["/nowhere"], 1, "it is not installed"))
    assert (result.verdict, result.fact, result.seconds) == ("skip", "it is not installed", 0)


def test_findings_come_back_as_they_were(capsys):
    def work(findings: Findings) -> None:
        findings.attempt("good", lambda: "7 ms")
        findings.attempt("bad", lambda: str(1 / 0))
        findings.figures["ms"] = {"encode": 7.5}

    assert run_step(work) == FAILED
    found = read(capsys.readouterr().out)
    assert [(check.name, check.passed, check.fact) for check in found.checks] == [
        ("good", True, "7 ms"),
        ("bad", False, "ZeroDivisionError: division by zero"),
    ]
    assert found.figures == {"ms": {"encode": 7.5}}
    assert run_step(lambda findings: findings.add("a", True)) == PASSED

    def skip(findings: Findings) -> None:
        findings.attempt("inside", lambda: (_ for _ in ()).throw(SkippedError("no torch")))

    assert run_step(skip) == SKIPPED


@pytest.mark.parametrize("output", ["", "nothing", "{}", "[1]", '{"checks": [{}], "figures": {}, "skipped": null}'])
def test_other_output_has_no_findings(output):
    assert read(output) is None


def test_the_command_writes_a_table_and_json(tmp_path, monkeypatch):
    file = tmp_path / "results.json"
    steps = [
        Step("first", step_of("findings.add('a', True)"), 60),
        Step("second", ["x"], 1, "it [is] not there"),
        Step("third", python("import sys; sys.exit(3)"), 60),
    ]
    monkeypatch.setattr(command, "steps", lambda bundle: steps)
    app = command.typer.Typer()
    app.command()(command.main)
    result = CliRunner().invoke(app, ["--json", str(file)])
    assert result.exit_code == 1
    assert [(each["name"], each["verdict"]) for each in json.loads(file.read_text())] == [
        ("first", "pass"),
        ("second", "skip"),
        ("third", "FAIL"),
    ]
    assert "it [is] not there" in result.stdout
    assert CliRunner().invoke(app, ["--json", str(file), "--only", "second"]).exit_code == 0
    assert [each["name"] for each in json.loads(file.read_text())] == ["second"]
    assert CliRunner().invoke(app, ["--only", "fourth"]).exit_code == 2


@pytest.mark.skipif(driver.missing() is None, reason="there is a GPU")
@pytest.mark.parametrize(
    "name",
    [
        "kernels",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("machine", "graphs", "sharing", "codec", "engines", "speed")),
    ],
)
def test_each_step_is_skipped_without_a_gpu_and_says_so(name):
    (step,) = (step for step in command.steps() if step.name == name)
    result = run(step)
    assert result.verdict == "skip", result.output
    assert result.fact.startswith(("NVIDIA's driver", "torch has no CUDA"))
