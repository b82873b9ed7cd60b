"""What a user names as a model: a bundle, or a folder of bundles, of one model or of several of different rates.

libdlf reads folders by the same rules (native/src/codec/bundle_folder.cpp); a test has both refuse the same ones.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BundleForeignError


@dataclass(frozen=True)
class Model:
    """The bundles of one model in a folder, which differ in their precision.

    Attributes:
        folder: the folder that was named.
        bundles: the folders of the bundles.
        fingerprint: what the manifests say of it: four hexadecimal digits.
        bits_per_pixel: what the manifests say of the model's rate; None where they do not.
    """

    folder: Path
    bundles: tuple[Path, ...]
    fingerprint: str
    bits_per_pixel: float | None

    def open(self) -> dict[str, Bundle]:
        """Open all bundles; by precision.

        Raises:
            BundleForeignError: two are of one precision.
            BundleBrokenError: of a bundle, see `Bundle`.
        """
        found: dict[str, Bundle] = {}
        for bundle in map(Bundle, self.bundles):
            if bundle.precision in found:
                raise BundleForeignError(
                    f"Folder {self.folder} holds two bundles of one model in {bundle.precision}, "
                    f"{found[bundle.precision].path.name} and {bundle.path.name}; name one of them."
                )
            found[bundle.precision] = bundle
        return found


class ModelFolder:
    """The models in a folder. Their manifests have been read; of `Model.open` more is checked.

    Attributes:
        path: the folder.
        models: at least one; those whose rate is known first, the lowest rate first.

    Raises:
        BundleForeignError: there is none.
        BundleBrokenError: of a manifest, see `Bundle`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        single = (self.path / "manifest.json").exists()
        inside = [] if single else sorted(file.parent for file in self.path.glob("*/manifest.json"))
        by_fingerprint: dict[str, list[tuple[Path, float | None]]] = {}
        for folder in inside or [self.path]:
            fingerprint, rate = _identity(folder)
            by_fingerprint.setdefault(fingerprint, []).append((folder, rate))
        models = [
            Model(
                self.path,
                tuple(folder for folder, _ in members),
                fingerprint,
                next((rate for _, rate in members if rate is not None), None),
            )
            for fingerprint, members in by_fingerprint.items()
        ]
        self.models = sorted(models, key=lambda model: (model.bits_per_pixel is None, model.bits_per_pixel or 0))

    def by_rate(self) -> list[Model]:
        """The models, the one of the lowest rate first.

        Raises:
            BundleForeignError: there are several, and of one of them the rate is not known.
        """
        if len(self.models) > 1:
            for model in self.models:
                if model.bits_per_pixel is None:
                    raise BundleForeignError(
                        f"Folder {self.path} holds several models, and the rate of {model.bundles[0].name} "
                        f"({model.fingerprint}) is not known; name one of them, or run python -m dlf.export.rate on its bundles."
                    )
        return self.models

    def of(self, fingerprint: str) -> Model | None:
        """The model that writes files of a fingerprint; None where it is not here."""
        return next((model for model in self.models if model.fingerprint == fingerprint), None)


def _identity(folder: Path) -> tuple[str, float | None]:
    """The fingerprint and the bits per pixel that a bundle's manifest tells. `Bundle` refuses what is none."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        rate = manifest["model"].get("bits_per_pixel")
        return str(manifest["fingerprint"]), None if rate is None else float(rate)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Bundle(folder).fingerprint, None
