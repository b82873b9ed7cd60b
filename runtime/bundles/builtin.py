"""The built-in model: a small DLF of our own, in the package as a bundle, for trying the runtime. See docs/model-card.md."""

import json
from functools import cache
from pathlib import Path
from typing import Any


def path() -> Path:
    """The folder of its bundle."""
    return Path(__file__).parents[1] / "models" / "builtin"


def fingerprint() -> str:
    """The fingerprint of files that it wrote: four hexadecimal digits."""
    return str(_manifest()["fingerprint"])


def license() -> str:
    """The licence of its weights, which is not dlf's own."""
    return str(_manifest()["model"]["license"])


@cache
def _manifest() -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((path() / "manifest.json").read_text(encoding="utf-8"))
    return manifest
