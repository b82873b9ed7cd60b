"""From what a user names to what runs: a bundle, and the backend for it.

A folder of bundles holds one model in several precisions, of which a backend takes the one that it runs fastest. Of a
folder, libdlf chooses by the same rules (native/src/codec/bundle_folder.cpp); a test has both refuse the same folders.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from dlf.runtime.backends import Backend, choice, gpu_choice
from dlf.runtime.bundles import builtin
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BundleForeignError


@dataclass(frozen=True)
class Selection:
    """A bundle and the open backend that runs it; and why these, in words."""

    bundle: Bundle
    backend: Backend
    why_bundle: str
    why_backend: str


def select(
    model: str | os.PathLike[str] | None = None,
    backend: str | None = None,
    threads: int | None = None,
    stream: int | None = None,
    device: str | None = None,
) -> Selection:
    """Return the bundle to use and the backend to run it.

    Args:
        model: the folder of a bundle, or a folder of bundles; None for the built-in model.
        backend: a backend's name; None for the one that runs one of the bundles fastest on this machine.
        threads, stream: see `choice.open_backend`.
        device: "cpu", "cuda" or "cuda:N"; see `gpu_choice.choose`.

    Raises:
        BundleForeignError, BundleBrokenError: see `open_all` and `choose`.
        BackendMissingError, BackendFailedError, InvalidArgumentError: see `gpu_choice.choose`, `choice.choose`
            and `choice.open_backend`.
    """
    found = open_all(builtin.path() if model is None else model)
    if on_gpu := gpu_choice.choose(backend, device, found):
        opened = choice.open_backend(on_gpu.name, threads, stream, on_gpu.device)
        bundle, why_bundle = choose(found, gpu_choice.precisions())
        gpu_choice.warn_if_slow(bundle)
        return Selection(bundle, opened, why_bundle, on_gpu.why)
    name, why_backend = choice.choose(backend, found)
    opened = choice.open_backend(name, threads, stream, device)
    bundle, why_bundle = choose(found, choice.precisions(name))
    return Selection(bundle, opened, why_bundle, why_backend)


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
