"""The built-in model: a small DLF of our own, in the package as a bundle, for trying the runtime. See docs/model-card.md."""

import json
from functools import cache
from pathlib import Path


def path() -> Path:
    """The folder of its bundle."""
    return Path(__file__).parents[1] / "models" / "builtin"


@cache
def fingerprint() -> str:
    """The fingerprint of files that it wrote: four hexadecimal digits."""
    return str(json.loads((path() / "manifest.json").read_text(encoding="utf-8"))["fingerprint"])
