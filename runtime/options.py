"""Commands whose parameters are the fields of a dataclass: commands share their options, and hand them on as one record."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

R = TypeVar("R")


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
