"""A command whose parameters are the fields of a dataclass, and sizes in bytes."""

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from dlf.runtime.options import parse_bytes, takes


@dataclass(frozen=True)
class Options:
    files: Annotated[list[str], typer.Argument(metavar="FILE")]
    threads: Annotated[int | None, typer.Option(min=1, help="How many.")] = None
    as_json: Annotated[bool, typer.Option("--json")] = False


def app() -> tuple[typer.Typer, list[Options]]:
    app, given = typer.Typer(), []

    @app.command()
    @takes(Options)
    def show(options: Options) -> None:
        """Show it."""
        given.append(options)

    return app, given


def test_the_command_gets_the_record():
    command, given = app()
    assert CliRunner().invoke(command, ["a", "b", "--threads", "2", "--json"]).exit_code == 0
    assert CliRunner().invoke(command, ["a"]).exit_code == 0
    assert given == [Options(["a", "b"], 2, True), Options(["a"])]


def test_help_and_ranges_are_the_fields():
    command, given = app()
    text = CliRunner().invoke(command, ["--help"]).output
    assert "Show it." in text and "How many." in text
    assert CliRunner().invoke(command, ["a", "--threads", "0"]).exit_code == 2
    assert not given


def test_sizes_are_exact_however_large():
    assert parse_bytes("0.5K") == 512
    assert parse_bytes("1.5GiB") == 3 << 29
    assert parse_bytes(f"{2**64 + 4096}") == 2**64 + 4096
    assert parse_bytes("9" * 400) > 2**64
