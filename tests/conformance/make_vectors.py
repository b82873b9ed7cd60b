"""Makes the conformance vectors again: python tests/conformance/make_vectors.py (with tests/ on PYTHONPATH).

They are written by the independent implementations (NumPy's prior, the coder and the container in plain Python), never by the
C++ core that is compared with them.
"""

import hashlib

import numpy as np
from helpers.conformance import FOLDER, SIZES, WITH_STEPS, entropy_bin, entropy_tables, latent, python_write_file, tokens
from helpers.entropy import python_detail_steps, python_encode_detail, random_tables


def main() -> None:
    """Write every file but the README."""
    made = random_tables(np.random.default_rng(20260), channels=16, gain=0.4, entries=64, dim=4)
    (FOLDER / "entropy.bin").write_bytes(made.to_bytes())
    tables, arrays, names = entropy_tables(), {}, ["entropy.bin"]
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
        (FOLDER / f"{name}.dlf").write_bytes(python_write_file(width, height, tokens(name), bits, stream))
        names.append(f"{name}.dlf")
    np.savez_compressed(FOLDER / "vectors.npz", **arrays)
    assert made.to_bytes() == entropy_bin()
    sums = (f"{hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (FOLDER / "SHA256SUMS").write_text("".join(sums))


if __name__ == "__main__":
    main()
