"""The bundle: one folder that holds one model. Every file is checked before it is used; see docs/format.md, section 4."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from dlf.runtime.bundles import references
from dlf.runtime.bundles.references import References
from dlf.runtime.errors import BundleBrokenError, BundleForeignError
from dlf.runtime.formats import BUNDLE_FORMAT, BUNDLE_VERSION
from dlf.runtime.libdlf import EntropyModel

# TensorProto.external_data in protobuf: an entry of key "location", then its value, a file name, behind one byte of length.
# (Backends parse it in full, and they too refuse what leaves the folder; this is to have every file's hash checked.)
_LOCATION = re.compile(rb"\n\x08location\x12(.)", re.DOTALL)

_REMEDY = "export or download the bundle again"


class Bundle:
    """A bundle whose manifest and entropy model have been read and checked; a stage's files are checked on first use.

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
        BundleBrokenError: a file is missing, malformed, named in a way that leaves the folder, or not what its hash says.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        self._checked: set[str] = set()
        try:
            self.name = str(self.manifest["model"]["name"])
            self.license = _license(self.manifest["model"])
            self._files = {
                str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in self.manifest["files"].items()
            }
            self._stages = {str(name): str(entry["file"]) for name, entry in self.manifest["stages"].items()}
            self.fingerprint = str(self.manifest["fingerprint"])
            self.precision = str(self.manifest["precision"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._broken("manifest.json", f"lacks or garbles a field ({type(error).__name__}: {error})") from error
        try:
            self.entropy = EntropyModel(self.entropy_bytes())
        except (BundleBrokenError, BundleForeignError) as error:
            raise type(error)(f"Bundle {self.path}: entropy.bin: {error}.") from error
        if f"{self.entropy.fingerprint:04x}" != self.fingerprint:
            raise self._broken(
                "entropy.bin", f"has the fingerprint {self.entropy.fingerprint:04x}, not the manifest's {self.fingerprint}"
            )

    def entropy_bytes(self) -> bytes:
        """Return the content of entropy.bin, checked."""
        return self._check("entropy.bin").read_bytes()

    def stage(self, name: str) -> Path:
        """Return a stage's ONNX file after checking it and the external data files that it refers to."""
        path = self._graph(name)
        for data in _external_data(path):
            self._check(data)
        return path

    def references(self) -> References | None:
        """Return the reference outputs of the stages; None if the bundle has none."""
        return references.read(self._check(references.NAME)) if references.NAME in self._files else None

    def stage_digest(self, name: str) -> str:
        """SHA-256, in hexadecimal, of a stage's graph and weights; the weights count as the manifest has them, unread."""
        graph = self._graph(name)
        files = sorted({graph.name, *_external_data(graph)})
        if missing := [file for file in files if file not in self._files]:
            raise self._broken(missing[0], "is not listed in manifest.json")
        return hashlib.sha256("".join(f"{self._files[file][1]} {file}\n" for file in files).encode()).hexdigest()

    def _graph(self, name: str) -> Path:
        """Return a stage's ONNX file after checking it, without its external data."""
        if name not in self._stages:
            raise self._broken("manifest.json", f"names no stage {name!r}")
        return self._check(self._stages[name])

    def _check(self, name: str) -> Path:
        """Return a file's path after checking its name, place, size and hash (once)."""
        path = self.path / name
        if name in self._checked:
            return path
        if name not in self._files:
            raise self._broken(name, "is not listed in manifest.json")
        if name != os.path.basename(name) or name in ("", ".", "..") or "\\" in name or "\0" in name:
            raise self._broken(name, "is not a plain file name")
        size, sha256 = self._files[name]
        try:
            if path.resolve().parent != self.path.resolve():
                raise self._broken(name, f"leads out of the folder, to {path.resolve()}")
            found = path.stat().st_size
            if found != size:
                raise self._broken(name, f"has {found} bytes, not {size}")
            if file_sha256(path) != sha256:
                raise self._broken(name, "is not what its SHA-256 in manifest.json says")
        except OSError as error:
            raise self._broken(name, f"cannot be read ({error.strerror})") from error
        self._checked.add(name)
        return path

    def _broken(self, name: str, fact: str) -> BundleBrokenError:
        return BundleBrokenError(f"Bundle {self.path}: {name} {fact}; {_REMEDY}.")


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleForeignError(f"{folder} is not a bundle: it has no manifest.json; make one with dlf-export.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BundleBrokenError(f"Bundle {folder}: manifest.json cannot be read ({error}); {_REMEDY}.") from error
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleBrokenError(f"Bundle {folder}: manifest.json is not JSON ({error}); {_REMEDY}.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != BUNDLE_FORMAT:
        raise BundleForeignError(f"{folder} is not a bundle: its manifest.json has another format; make one with dlf-export.")
    if manifest.get("format_version") != BUNDLE_VERSION:
        raise BundleForeignError(
            f"Bundle {folder} has format version {manifest.get('format_version')}; this dlf reads version {BUNDLE_VERSION}: "
            "update dlf, or export the bundle again."
        )
    return manifest


def _license(model: Mapping[str, Any]) -> str | None:
    if "license" not in model:
        return None
    if not isinstance(model["license"], str):
        raise TypeError("the model's license is no text")
    return model["license"]


def _external_data(path: Path) -> set[str]:
    """The names of the files that an ONNX file keeps its weights in."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        return {data[found.end() : found.end() + found[1][0]].decode(errors="replace") for found in _LOCATION.finditer(data)}


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal; read in pieces, since a stage's weights may be larger than memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
