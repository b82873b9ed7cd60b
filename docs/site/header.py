"""dlf.h as a page of the site: its sections, and under each declaration the comment that stands before it.

The header is the one source. This reads it as clang-format leaves it: empty lines between declarations, each behind its comment.
"""

import re
from pathlib import Path

HEADER = Path(__file__).parents[2] / "runtime" / "native" / "include" / "dlf.h"
RULE = re.compile(r"^/\* -{20,} ([^\n*]+?)(?: \*/)?$", re.MULTILINE)
NAME = re.compile(r"\b(dlf_\w+)(?=\(|;)|\(\*(dlf_\w+)\)")


def markdown() -> str:
    """The page."""
    text = HEADER.read_text(encoding="utf-8")
    top, _, body = text.partition("*/\n")
    title, _, about = _uncomment(top).partition("\n")
    lines = ["# dlf.h", "", title, "", *_top(about)]
    version = body.index("#define DLF_VERSION_MAJOR")
    for block in _blocks(body[version : body.rindex("#ifdef __cplusplus")]):
        lines += _section(block) if RULE.match(block) else _declaration(block)
    return "\n".join(lines) + "\n"


def _blocks(text: str) -> list[str]:
    """Split at empty lines that are not inside a comment or braces."""
    found: list[str] = []
    for part in re.split(r"\n\n+", text.strip()):
        last = found[-1] if found else ""
        inside = last.count("/*") > last.count("*/") or last.count("{") > last.count("}")
        if inside:
            found[-1] += f"\n\n{part}"
        else:
            found.append(part)
    return found


def _uncomment(comment: str) -> str:
    """The text of a comment, without its stars."""
    text = re.sub(r"^/\*|\*/$", "", comment.strip())
    return "\n".join(re.sub(r"^ \* ?", "", line).rstrip() for line in text.splitlines()).strip("\n ")


def _top(about: str) -> list[str]:
    """The comment at the top: an example, a paragraph, and the conventions as a list."""
    lines: list[str] = []
    for part in re.split(r"\n\n", about.strip("\n")):
        if part.startswith("    "):
            lines += ["```c", *(line.removeprefix("    ") for line in part.splitlines()), "```", ""]
        elif "\n - " in part:
            title, *items = re.split(r"\n - ", part)
            lines += [title, "", *(f"- {' '.join(item.split())}" for item in map(_escape, items)), ""]
        else:
            lines += [_escape(" ".join(part.split())), ""]
    return lines


def _section(block: str) -> list[str]:
    """A section's heading, what it says, and a declaration that follows without an empty line."""
    rule = RULE.match(block)
    assert rule
    about, _, code = block[rule.end() :].partition("*/\n")
    about = _uncomment(f"/*{about}").removesuffix("*/")
    lines = [f"## {rule[1].strip().capitalize()}", ""]
    if about.strip():
        lines += [_escape(" ".join(about.split())), ""]
    return lines + (_declaration(code) if code.strip() else [])


def _declaration(block: str) -> list[str]:
    """A heading of names, the comment before them, and the code."""
    comment, code = re.match(r"((?:/\*.*?\*/\n)?)(.*)", block, re.DOTALL).groups()  # type: ignore[union-attr]
    bare = re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL)
    defined = re.findall(r"#define (DLF_\w+[A-Z])\b(?!\()", bare)
    outside = [found for pair in NAME.findall(re.sub(r"\{.*\}", "", bare, flags=re.DOTALL)) for found in pair if found]
    names = dict.fromkeys(defined or outside or re.findall(r"DLF_\w+", bare))
    code = re.sub(r"\b(?:DLF_NODISCARD |DLF_API )| DLF_NOEXCEPT", "", code)
    if "{" not in code:
        code = re.sub(r"[^\n]+\([^;]{70,}\);", _one_a_line, code)
    heading = ", ".join(f"`{name}`" for name in names)
    return [f"### {heading}", "", *_prose(_uncomment(comment)), "```c", *code.strip().splitlines(), "```", ""]


def _one_a_line(declaration: re.Match[str]) -> str:
    """A long declaration, with each parameter on a line."""
    head, _, parameters = " ".join(declaration[0].split()).partition("(")
    return f"{head}(\n    " + parameters.replace(", ", ",\n    ")


def _prose(text: str) -> list[str]:
    """A declaration's comment: paragraphs, a list of parameters, and what is returned."""
    lines: list[str] = []
    for line in text.splitlines():
        parameter = re.match(r" (\S.*?)  +(\S.*)", line)
        last = lines[-1] if lines else ""
        if parameter:
            lines += [*([""] if last and not last.startswith("- ") else []), f"- `{parameter[1]}`: {_escape(parameter[2])}"]
        elif last.startswith("- ") and line.startswith("      "):
            lines[-1] += f" {_escape(line.strip())}"
        elif not last or last.startswith("- ") or line.startswith("Returns"):
            lines += ["", _escape(line.strip())]
        else:
            lines[-1] += f" {_escape(line.strip())}"
    return [*lines, ""] if text else []


def _escape(text: str) -> str:
    """Names and stars of C are not Markdown's emphasis."""
    return re.sub(r"(\*?\b(?:dlf_\w+|DLF_\w+|[a-z]+_[a-z_]+)\b|\*[a-z]\w+)", r"`\1`", text).replace("<", "&lt;")
