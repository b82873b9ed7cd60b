"""A folder of bundles: one model in several precisions, of which each backend takes the one that it runs fastest."""

import os
from collections.abc import Collection
from pathlib import Path

from dlf.runtime.bundle import Bundle
from dlf.runtime.errors import BundleForeignError


def choose(path: str | os.PathLike[str], precisions: Collection[str]) -> tuple[Bundle, str]:
    """Open the bundle at `path`; if that is a folder of bundles, the one whose precision comes first in `precisions`.

    Returns the bundle, and why it is this one, in words.

    Raises:
        BundleForeignError: there is none, or they are of different models, or two of one precision, or of no precision in
            `precisions`.
        BundleBrokenError: of a bundle, see `Bundle`.
    """
    folder = Path(path)
    folders = [] if (folder / "manifest.json").exists() else sorted(file.parent for file in folder.glob("*/manifest.json"))
    if not folders:
        return Bundle(folder), "the only one"
    found: dict[str, Bundle] = {}
    for bundle in map(Bundle, folders):
        if other := next((other for other in found.values() if other.fingerprint != bundle.fingerprint), None):
            raise BundleForeignError(
                f"Folder {folder} holds different models, {other.path.name} ({other.fingerprint}) and {bundle.path.name} "
                f"({bundle.fingerprint}); name one of them."
            )
        if bundle.precision in found:
            raise BundleForeignError(
                f"Folder {folder} holds two bundles in {bundle.precision}, {found[bundle.precision].path.name} and "
                f"{bundle.path.name}; name one of them."
            )
        found[bundle.precision] = bundle
    best = next((precision for precision in precisions if precision in found), None)
    if best is None:
        raise BundleForeignError(f"Folder {folder} holds bundles in {', '.join(found)}, and {', '.join(precisions)} are known.")
    return found[best], f"the fastest on this backend, of {', '.join(sorted(found))}"
