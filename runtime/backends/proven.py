"""Which backends have proved themselves on a GPU: those whose self-test (`dlf doctor`) passed, by driver, card and bundle.

Each is a small file in the user's cache folder. Without one, a GPU is used only where it is asked for.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import dlf
from dlf.runtime.bundles.bundle import Bundle, file_sha256
from dlf.runtime.files import cache_folder, write_atomically
from dlf.runtime.gpu import driver


@dataclass(frozen=True)
class Proof:
    """What passed: a backend with a bundle on a GPU.

    Attributes:
        bundle: SHA-256 of the bundle's manifest, which has those of all its files.
        backend: the backend's name.
        gpu: name of the GPU.
        driver: `driver.identity`.
        dlf: version of dlf.
    """

    bundle: str
    backend: str
    gpu: str
    driver: str
    dlf: str


def folder() -> Path:
    """Return the folder of the proofs."""
    return cache_folder() / "proven"


def remember(bundle: Bundle, backend: str, gpu: str, passed: bool) -> None:
    """Keep that the self-test of a bundle passed on a backend and this GPU, or that it did not.

    Raises OSError: the folder cannot be written.
    """
    proof = Proof(_digest(bundle), backend, gpu, driver.identity(), dlf.__version__)
    path = _path(proof)
    if not passed:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(proof), indent=1).encode())


def is_anything(bundle: Bundle) -> bool:
    """Whether any backend has passed with this bundle, on whatever GPU. This asks no driver."""
    return any(folder().glob(f"{_digest(bundle)}-*.json"))


def is_proven(bundle: Bundle, backend: str, gpu: str) -> bool:
    """Whether a backend has passed with this bundle on a GPU of this name, with the driver of today."""
    proof = Proof(_digest(bundle), backend, gpu, driver.identity(), dlf.__version__)
    try:
        return bool(json.loads(_path(proof).read_bytes()) == asdict(proof))
    except (OSError, ValueError):
        return False


def _digest(bundle: Bundle) -> str:
    return file_sha256(bundle.path / "manifest.json")


def _path(proof: Proof) -> Path:
    text = json.dumps([proof.backend, proof.gpu, proof.driver, proof.dlf])
    return folder() / f"{proof.bundle}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
