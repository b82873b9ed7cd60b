"""Store the equal files of the bundles of one folder once, as hard links.

A folder of models holds the same weights several times where its checkpoints share stages, and the same entropy model for each
precision. Nothing changes a bundle's files in place: an export, and all that writes a manifest, puts new ones in their place.
"""

import os
import secrets
from pathlib import Path

from dlf.export import manifest
from dlf.runtime.bundles.bundle import file_sha256

SMALLEST = 4096  # bytes of a file that is worth it: a file system's block


def share(bundle: Path) -> int:
    """Replace files of a bundle by links to equal ones of the bundles beside it; return how many bytes are saved.

    A file is looked at before it is linked to. Where the file system has no hard links, all stays as it is.
    """
    saved = 0
    beside = [file.parent for file in sorted(bundle.parent.glob("*/manifest.json")) if not file.parent.samefile(bundle)]
    elsewhere = {digest: path for other in beside for digest, path in _listed(other).items()}
    for digest, path in _listed(bundle).items():
        other = elsewhere.get(digest)
        if other is None or path.is_symlink() or path.stat().st_size < SMALLEST or path.samefile(other):
            continue
        if file_sha256(other) == digest and _link(other, path):
            saved += path.stat().st_size
    return saved


def _listed(bundle: Path) -> dict[str, Path]:
    """The files of a bundle that are there, by their hashes; none where its manifest cannot be read."""
    try:
        files = {entry["sha256"]: bundle / name for name, entry in manifest.read(bundle)["files"].items()}
        return {digest: path for digest, path in files.items() if path.is_file()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _link(existing: Path, path: Path) -> bool:
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        os.link(os.path.realpath(existing), temporary)
    except OSError:
        return False
    temporary.replace(path)
    return True
