"""The commands as their --help tells them, as Markdown for the site and as man pages: `python docs/site/commands.py FOLDER`.

Both are made from the parameters of the Typer apps. Man pages are committed in docs/man, since a wheel is built where the
commands cannot be imported; a test holds them equal to what is made here.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

import dlf

PROGRAMS = {"dlf": "dlf.runtime.cli", "dlf-export": "dlf.export.cli", "dlf-bench": "dlf.benchmarks.cli"}
VERBATIM = "\b"  # begins a paragraph that is not to be filled


@dataclass(frozen=True)
class Command:
    """A command or a sub-command.

    Attributes:
        name: with the program's, such as "dlf encode".
        usage: what follows the name.
        text: paragraphs; those that begin with VERBATIM are lines as they stand.
        parameters: "Arguments" and "Options", each a list of (spelling, meaning).
    """

    name: str
    usage: str
    text: list[str]
    parameters: dict[str, list[tuple[str, str]]]


def commands(program: str) -> list[Command]:
    """A program and its sub-commands."""
    app = import_module(PROGRAMS[program]).app
    return list(_walk(typer.main.get_command(app), program, None))


def _walk(command: Any, name: str, parent: Any) -> Iterator[Command]:
    context = command.context_class(command, info_name=name, parent=parent)
    parameters: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record:
            title = "Arguments" if parameter.param_type_name == "argument" else "Options"
            parameters.setdefault(title, []).append(record)
    usage = " ".join(command.collect_usage_pieces(context))
    yield Command(name, usage, _paragraphs(command.help) + _paragraphs(command.epilog), parameters)
    for sub, child in getattr(command, "commands", {}).items():
        yield from _walk(child, f"{name} {sub}", None)


def _paragraphs(text: str | None) -> list[str]:
    found = []
    for block in re.split(r"\n\s*\n", text or ""):
        lines = [line.strip() if VERBATIM not in block else line.removeprefix("    ") for line in block.splitlines()]
        if VERBATIM in block:
            found.append(VERBATIM + "\n".join(line for line in lines if line.strip() != VERBATIM))
        elif block.strip():
            found.append(" ".join(lines).strip())
    return found


def markdown(program: str) -> str:
    """A page of the site."""
    lines = [f"# {program}", ""]
    for command in commands(program):
        if command.name != program:
            lines += [f"## {command.name}", ""]
        lines += ["```text", f"{command.name} {command.usage}", "```", ""]
        for paragraph in command.text:
            verbatim = paragraph.startswith(VERBATIM)
            lines += ["```text", paragraph.removeprefix(VERBATIM), "```", ""] if verbatim else [paragraph, ""]
        for title, entries in command.parameters.items():
            lines += [f"| {title} | |", "|---|---|"]
            lines += [f"| `{spelling}` | {_cell(meaning)} |" for spelling, meaning in entries] + [""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def man(program: str) -> str:
    """A man page, in section 1."""
    first, *subs = commands(program)
    lines = [f'.TH {program.upper()} 1 "" "dlf {dlf.__version__}"']
    lines += [".SH NAME", f"{program} \\- {_roff(first.text[0]).rstrip('.')}", ".SH SYNOPSIS"]
    for command in [first, *subs]:
        lines += [f".B {command.name}", _roff(command.usage), ".br"]
    lines += [".SH DESCRIPTION", *_body(first)]
    for command in subs:
        lines += [f".SH {command.name.upper()}", *_body(command)]
    lines += [".SH EXIT STATUS", *(f".TP\n.B {code}\n{meaning}" for code, meaning in _exit_codes(program))]
    return "\n".join(lines) + "\n"


def _body(command: Command) -> list[str]:
    lines = []
    for paragraph in command.text:
        if paragraph.startswith(VERBATIM):
            lines += [".PP", ".nf", *map(_roff, paragraph.removeprefix(VERBATIM).splitlines()), ".fi"]
        else:
            lines += [".PP", _roff(paragraph)]
    for title, entries in command.parameters.items():
        lines.append(f".SS {title}")
        for spelling, meaning in entries:
            lines += [".TP", f".B {_roff(spelling)}", _roff(meaning)]
    return lines


def _exit_codes(program: str) -> Iterator[tuple[str, str]]:
    """Of the docstring of a program's module: "Exit codes: 0 done; 1 ..."."""
    text = " ".join((import_module(PROGRAMS[program]).__doc__ or "").split()).partition("Exit codes: ")[2]
    for part in text.rstrip(".").split("; "):
        code, _, meaning = part.partition(" ")
        yield code, _roff(meaning)


def _roff(text: str) -> str:
    """Text that roff takes as it stands: no request at the start of a line, hyphens that can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return f"\\&{escaped}" if escaped.startswith((".", "\\(aq")) else escaped


def main() -> None:
    """Write the man pages."""
    for program in PROGRAMS:
        (Path(sys.argv[1]) / f"{program}.1").write_text(man(program))


if __name__ == "__main__":
    main()
