"""From what a user names to what runs: a bundle, and the backend for it.

A folder of bundles holds one model in several precisions, of which a backend takes the one that it runs fastest; or several
models, of which the file to decode, or the rate that is asked for, tells the one (`dlf.runtime.bundles.folder`).
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dlf.runtime.backends import Backend, choice, gpu_choice
from dlf.runtime.bundles import builtin
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.bundles.folder import ModelFolder
from dlf.runtime.errors import BundleForeignError


@dataclass(frozen=True)
class Selection:
    """A bundle and the open backend that runs it; why these, in words; and the precisions that the backend runs fastest."""

    bundle: Bundle
    backend: Backend
    why_bundle: str
    why_backend: str
    precisions: Sequence[str]


def models(path: str | os.PathLike[str] | None = None) -> ModelFolder:
    """The models at `path`; None for the built-in one. Raises BundleForeignError, BundleBrokenError, see `ModelFolder`."""
    return ModelFolder(builtin.path() if path is None else path)


def open_all(path: str | os.PathLike[str] | None = None) -> dict[str, Bundle]:
    """Open the bundles of the model at `path`, of several the one of the highest rate; by precision.

    Raises:
        BundleForeignError: there is none, it is not known which has the highest rate, or two are of one precision.
        BundleBrokenError: of a bundle, see `Bundle`.
    """
    return models(path).by_rate()[-1].open()


def select(
    found: Mapping[str, Bundle],
    backend: str | None = None,
    threads: int | None = None,
    stream: int | None = None,
    device: str | None = None,
) -> Selection:
    """Return the bundle to use, and the backend to run it.

    Args:
        found: the bundles of one model, by precision.
        backend: a backend's name; None for the one that runs one of the bundles fastest on this machine.
        threads, stream: see `choice.open_backend`.
        device: "cpu", "cuda" or "cuda:N"; see `gpu_choice.choose`.

    Raises:
        BundleForeignError: see `choose`.
        BackendMissingError, BackendFailedError, InvalidArgumentError: see `gpu_choice.choose`, `choice.choose`
            and `choice.open_backend`.
    """
    if on_gpu := gpu_choice.choose(backend, device, found):
        opened = choice.open_backend(on_gpu.name, threads, stream, on_gpu.device)
        bundle, why_bundle = choose(found, gpu_choice.precisions())
        gpu_choice.warn_if_slow(bundle)
        return Selection(bundle, opened, why_bundle, on_gpu.why, gpu_choice.precisions())
    name, why_backend = choice.choose(backend, found)
    opened = choice.open_backend(name, threads, stream, device)
    bundle, why_bundle = choose(found, choice.precisions(name))
    return Selection(bundle, opened, why_bundle, why_backend, choice.precisions(name))


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
