"""What is in a model's folder, for people to choose from."""

import os
from dataclasses import dataclass

from dlf.runtime import bundles


@dataclass(frozen=True)
class Listed:
    """A bundle of a model.

    Attributes:
        quality: what `Codec.encode` calls the model; None where several have no order, since a rate is not known.
        name, fingerprint: of the model.
        precision: of the bundle's stages.
        bits_per_pixel: the model's rate; None where it was not measured.
        license: of the model, as its manifest words it; None where it is not known.
        bytes: of the bundle's files.
        path: the bundle's folder.
    """

    quality: int | None
    name: str
    fingerprint: str
    precision: str
    bits_per_pixel: float | None
    license: str | None
    bytes: int
    path: str


def listed(path: str | os.PathLike[str] | None = None) -> list[Listed]:
    """The bundles at `path`, the lowest rate first; None for the built-in model.

    Raises BundleForeignError, BundleBrokenError, see `bundles.models` and `Model.open`.
    """
    models = bundles.models(path).models
    ordered = len(models) == 1 or all(model.bits_per_pixel is not None for model in models)
    return [
        Listed(
            quality=quality if ordered else None,
            name=bundle.name,
            fingerprint=bundle.fingerprint,
            precision=precision,
            bits_per_pixel=model.bits_per_pixel,
            license=bundle.license,
            bytes=sum(entry["bytes"] for entry in bundle.manifest["files"].values()),
            path=str(bundle.path),
        )
        for quality, model in enumerate(models)
        for precision, bundle in sorted(model.open().items())
    ]
