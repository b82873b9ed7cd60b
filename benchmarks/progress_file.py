"""Keep a run's finished measurements in a file, so that an interrupted run can continue.

Each line is a JSON object for one image. Its key is made of the image, bundle, backend and settings: a line is used only if they
are the same. An incomplete last line is ignored.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from dlf.benchmarks.measure import Pictures
from dlf.benchmarks.records import ImageResult
from dlf.runtime.files import write_atomically


class ProgressFile:
    """The file beside an unfinished report; without a path nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._done: dict[str, dict[str, Any]] = {}
        if path and path.exists():
            whole, newline, torn = path.read_bytes().rpartition(b"\n")
            if torn:
                write_atomically(path, whole + newline)
            lines = [json.loads(line) for line in whole.splitlines()]
            self._done = {line["key"]: line for line in lines}

    def find(self, key: str) -> tuple[ImageResult, Pictures] | None:
        """Return the result of a key, or None."""
        line = self._done.get(key)
        return (ImageResult.from_json(line["result"]), line["pictures"]) if line else None

    def add(self, key: str, result: ImageResult, pictures: Pictures) -> None:
        """Write a result."""
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps({"key": key, "result": asdict(result), "pictures": pictures}) + "\n")

    def remove(self) -> None:
        """Delete the file; the report is complete."""
        if self.path:
            self.path.unlink(missing_ok=True)


def key(image: Path, settings: Mapping[str, object]) -> str:
    """Return a hash of what a result depends on: the image's name and bytes, and the settings."""
    depends = {"image": image.name, "sha256": sha256(image.read_bytes()).hexdigest(), **settings}
    return sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
