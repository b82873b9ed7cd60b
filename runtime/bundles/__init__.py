"""A folder of bundles: one model in several precisions, of which a backend takes the one that it runs fastest."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BundleForeignError


def open_all(path: str | os.PathLike[str]) -> dict[str, Bundle]:
    """Open the bundle at `path`, or if that is a folder of bundles, all of them; by precision.

    Raises:
        BundleForeignError: there is none, or they are of different models, or two of one precision.
        BundleBrokenError: of a bundle, see `Bundle`.
    """
    folder = Path(path)
    folders = [] if (folder / "manifest.json").exists() else sorted(file.parent for file in folder.glob("*/manifest.json"))
    found: dict[str, Bundle] = {}
    for bundle in map(Bundle, folders or [folder]):
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
    return found


def choose(found: Mapping[str, Bundle], precisions: Collection[str]) -> tuple[Bundle, str]:
    """Of bundles by precision, the one whose precision comes first in `precisions`, and why it is this one, in words.

    A single bundle is taken whatever its precision.

    Raises:
        BundleForeignError: there are several, and none has a precision in `precisions`.
    """
    if len(found) == 1:
        return next(iter(found.values())), "the only one"
    best = next((precision for precision in precisions if precision in found), None)
    if best is None:
        folder = next(iter(found.values())).path.parent
        raise BundleForeignError(f"Folder {folder} holds bundles in {', '.join(found)}, and {', '.join(precisions)} are known.")
    return found[best], f"the fastest on this backend, of {', '.join(sorted(found))}"
