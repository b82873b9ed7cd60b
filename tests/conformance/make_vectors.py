"""Makes the conformance vectors again: python tests/conformance/make_vectors.py (with tests/ on PYTHONPATH).

They are written by the independent implementations (NumPy's prior, the coder and the container in plain Python), never by the
C++ core that is compared with them.
"""

import dataclasses
import hashlib

import numpy as np
from helpers.conformance import (
    FOLDER,
    FOLDERS,
    SIZES,
    WITH_STEPS,
    entropy_bin,
    entropy_tables,
    latent,
    python_write_file,
    token_frequencies,
    tokens,
)
from helpers.entropy import python_detail_steps, python_encode_detail, random_tables

FILES = ("entropy.bin", *(f"{name}.dlf" for name in SIZES))  # of each version


def main() -> None:
    """Write every file but the README."""
    made = random_tables(np.random.default_rng(20260), channels=16, gain=0.4, entries=64, dim=4)
    coded = dataclasses.replace(made, token_frequencies=token_frequencies(64))
    for folder, model in zip(FOLDERS.values(), (made, coded), strict=True):
        folder.mkdir(exist_ok=True)
        (folder / "entropy.bin").write_bytes(model.to_bytes())
    tables, arrays = entropy_tables(), {}
    bits = (len(tables.codebook) - 1).bit_length()
    for name, (width, height) in SIZES.items():
        stream, y_hat = python_encode_detail(tables, latent(name))
        arrays[f"{name}.y_hat_sha256"] = np.frombuffer(hashlib.sha256(y_hat.astype("<f4").tobytes()).digest(), np.uint8)
        if name in WITH_STEPS:
            steps = python_detail_steps(tables, latent(name))
            arrays[f"{name}.symbols"] = np.concatenate([step.symbols for step in steps])
            arrays[f"{name}.indexes"] = np.concatenate([step.coded_indexes for step in steps])
            for k, step in enumerate(steps):
                arrays |= {f"{name}.step{k}.{part}": getattr(step, part) for part in ("r", "indexes", "means")}
        for version, folder in FOLDERS.items():
            (folder / f"{name}.dlf").write_bytes(python_write_file(width, height, tokens(name), bits, stream, version))
    np.savez_compressed(FOLDER / "vectors.npz", **arrays)
    assert made.to_bytes() == entropy_bin()
    names = (f"{folder.relative_to(FOLDER) / name}" for folder in FOLDERS.values() for name in FILES)
    sums = (f"{hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (FOLDER / "SHA256SUMS").write_text("".join(sums))


if __name__ == "__main__":
    main()
