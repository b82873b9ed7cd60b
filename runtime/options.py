"""What commands share of their options: a dataclass whose fields are a command's parameters, and sizes in bytes."""

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from functools import wraps
from typing import Any, TypeVar

import typer

R = TypeVar("R")

POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}  # of 1024


def parse_bytes(text: str) -> int:
    """Return a number of bytes as the command line spells it: 4000000000, 512M, 1.5G. Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(Decimal(match[1]) * 1024 ** POWERS[match[2].upper()]) if match else 0
    if size < 1:
        raise typer.BadParameter(f"{text!r} is not a size; write bytes, or a number with K, M, G or T, such as 4G.")
    return size


def takes(record: type[R]) -> Callable[[Callable[[R], None]], Callable[..., None]]:
    """Make a function of one `record` a Typer command that has a parameter for each field of `record`, a dataclass."""

    def with_fields(command: Callable[[R], None]) -> Callable[..., None]:
        @wraps(command)
        def run(**values: Any) -> None:
            command(record(**values))

        run.__signature__ = inspect.signature(record)  # type: ignore[attr-defined]
        run.__annotations__ = {field.name: field.type for field in fields(record)}  # type: ignore[arg-type]
        return run

    return with_fields
