"""The processes of the steps: what becomes of them, the table, the JSON file, and the exit code."""

import json
import os
import re
import sys
from pathlib import Path

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


FAKE_SANITIZER = r"""#!/bin/sh
# As compute-sanitizer does: runs a program, tells the errors, and passes on the exit code if there are none.
[ "$1 $2" = "--error-exitcode 99" ] || exit 98
shift 2
echo "========= COMPUTE-SANITIZER"
"$@"
code=$?
echo "========= ERROR SUMMARY: $ERRORS errors"
[ "$ERRORS" = 0 ] && exit $code || exit 99
"""


@pytest.fixture
def sanitizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake = tmp_path / "compute-sanitizer"
    fake.write_text(FAKE_SANITIZER)
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return fake


def the_step(name: str) -> Step:
    (step,) = (step for step in command.steps() if step.name == name)
    return step


@pytest.mark.parametrize(
    ("work", "errors", "verdict", "fact"),
    [
        ("findings.add('a', True)", "0", "pass", "1 checks"),
        ("findings.add('a', True)", "3", "FAIL", "========= ERROR SUMMARY: 3 errors"),
        ("findings.add('a', False, 'off by one')", "0", "FAIL", "1 of 1 checks, the first: a: off by one"),
        ("raise SkippedError('no GPU')", "0", "skip", "no GPU"),
    ],
)
def test_kernels_under_the_sanitizer(sanitizer, monkeypatch, work, errors, verdict, fact):
    monkeypatch.setenv("ERRORS", errors)
    monkeypatch.setattr(command, "module", lambda name, *arguments: step_of(work) if name == "kernels" else ["x"])
    step = the_step("sanitizer")
    assert step.command[0] == str(sanitizer)
    result = run(step)
    assert (result.verdict, result.fact) == (verdict, fact)


def test_without_the_sanitizer_the_step_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    if not Path("/usr/local/cuda/bin/compute-sanitizer").exists():
        assert run(the_step("sanitizer")).fact == "compute-sanitizer is not installed"


def test_pytest_is_given_all_files_with_tests_for_a_gpu():
    marked = {
        path.relative_to(command.TESTS)
        for path in command.TESTS.rglob("test_*.py")
        if re.search(r"mark\.gpu|helpers_gpu\.ON_GPU|helpers_kernels\.", path.read_text())
    }
    assert len(marked) >= 8
    for path in marked:
        assert any(path.is_relative_to(each) for each in command.ON_GPU), path


def test_pytest_is_started_where_it_has_what_these_files_import(monkeypatch):
    monkeypatch.setattr(driver, "missing", lambda: None)
    assert the_step("pytest").lacks is None
    monkeypatch.setattr(command, "find_spec", lambda name: None if name in ("onnx", "torch") else name)
    assert the_step("pytest").lacks == "not installed: torch, onnx"


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
    result = run(the_step(name))
    assert result.verdict == "skip", result.output
    assert result.fact.startswith(("NVIDIA's driver", "torch has no CUDA"))
