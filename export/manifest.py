"""Read and replace a bundle's manifest, which may be done at any time after the export: no hash covers it."""

import json
from pathlib import Path
from typing import Any

from dlf.runtime.files import write_atomically


def read(bundle: Path) -> dict[str, Any]:
    """The content of a bundle's manifest, unchecked."""
    content: dict[str, Any] = json.loads((bundle / "manifest.json").read_bytes())
    return content


def write(bundle: Path, content: dict[str, Any]) -> None:
    """Replace a bundle's manifest, whole or not at all."""
    write_atomically(bundle / "manifest.json", (json.dumps(content, indent=1) + "\n").encode())
