"""The bundle: one folder that holds one model. libdlf reads it and checks each file; see docs/format.md, section 4."""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dlf.runtime.libdlf import BundleReader, Direction, Levels

if TYPE_CHECKING:
    from dlf.runtime.bundles.references import References


class Bundle:
    """A bundle whose manifest and entropy model have been read and checked; any other file is checked on first use.

    Not for use by several threads at a time, except for its attributes.

    Attributes:
        path: the folder.
        manifest: the content of manifest.json.
        name: of the model.
        license: of the model, as its manifest words it; None where it has none.
        precision: of its stages: "fp32", or a lower one that its graphs spell out.
        fingerprint: of the model, as `.dlf` files carry it: four hexadecimal digits.
        entropy: its entropy model.

    Raises:
        BundleForeignError: the folder is no bundle, or one of a format version that this dlf does not know.
        BundleBrokenError: a file is missing, malformed, not a regular file, or not what its hash says.
        InvalidArgumentError: DLF_ISA asks for what this processor does not have.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._reader = BundleReader(self.path)
        self.manifest = self._reader.manifest
        self.name = self._reader.name
        self.license: str | None = self.manifest["model"].get("license")
        self.precision = self._reader.precision
        self.fingerprint = f"{self._reader.fingerprint:04x}"
        self.entropy = self._reader.entropy

    def entropy_bytes(self) -> bytes:
        """Return the content of entropy.bin, checked."""
        return self._reader.file("entropy.bin").read_bytes()

    def stage(self, name: str) -> Path:
        """Return a stage's ONNX file after checking it and the external data files that it refers to.

        Raises BundleBrokenError.
        """
        return self._reader.stage(name)

    def levels(self, threads: int | None) -> Levels | None:
        """The generator's upper levels in so many threads; None where the bundle lists none, or none that libdlf computes here.

        Raises BundleBrokenError.
        """
        return self._reader.levels(threads)

    def check_memory(
        self,
        backend: str,
        direction: Direction,
        height: int,
        width: int,
        images: int,
        limit: int | None,
        *,
        low_memory: bool = False,
    ) -> bool:
        """Whether stages must be released once they have run, for images of one size to take at most so much memory together.

        It goes by what the manifest says that they took where the bundle was exported; a bundle or a backend that was not
        measured is never refused.

        Args:
            backend: its name.
            direction: "encode" or "decode".
            height, width: of each image, in pixels.
            images: how many.
            limit: bytes of the whole process at its peak; None for what this machine, and the control groups of this
                process, leave it.
            low_memory: stages are released in any case.

        Raises OutOfMemoryError: they take more even so; the message says what would fit.
        """
        return self._reader.check_memory(backend, direction, height, width, images, limit, low_memory=low_memory)

    def references(self) -> "References | None":
        """Return the reference outputs of the stages; None if the bundle has none. Raises BundleBrokenError."""
        from dlf.runtime.bundles import references  # the doctor alone needs it

        return references.read(self._reader.file(references.NAME)) if references.NAME in self.manifest["files"] else None

    def allows_tf32(self, name: str) -> bool:
        """Whether a GPU may compute an fp32 stage's products in TF32: the bundle passed its export's gate with it."""
        return self.manifest["stages"][name].get("tf32") is True

    def stage_digest(self, name: str) -> str:
        """SHA-256, in hexadecimal, of a stage's graph and weights; the weights count as the manifest has them, unread.

        Raises BundleBrokenError.
        """
        return self._reader.stage_digest(name)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal; read in pieces, since a stage's weights may be larger than memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
