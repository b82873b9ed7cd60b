"""Count a bundle's tokens on photographs, and give it their frequencies: its files then code tokens instead of packing them.

A token's frequency depends on its place in the tile. Of a large codebook most tokens are seen seldom at any one place, so that a
place's counts are blended with those of all places, as strongly as foretells each token best from all others.
"""

import logging
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlf.export import manifest
from dlf.export.bundle import vouch
from dlf.export.output_folder import writing
from dlf.kernels.entropy_bin import TOKENS_PER_TILE, EntropyTables
from dlf.runtime import images
from dlf.runtime.backends.choice import open_backend
from dlf.runtime.bundles import references
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import ExportError
from dlf.runtime.images import Pixels
from dlf.runtime.libdlf import EntropyModel

log = logging.getLogger(__name__)

SLOTS = 1 << 16  # the sum of a place's frequencies
STRENGTHS = 2.0 ** np.arange(-4, 21)  # of the blend, in tokens


def add(source: Path, output: Path, photographs: Iterable[Pixels], progress: Callable[[str], None] = lambda _: None) -> None:
    """Write the fp32 bundle `source` with the frequencies of its tokens on photographs to `output`, whole or not at all.

    `photographs` are (H, W, 3) uint8; they are taken one by one.

    Raises:
        ExportError: `source` is in a lower precision, or its codebook has one entry; or `output` cannot be written.
        BundleForeignError, BundleBrokenError: `source` cannot be used.
    """
    bundle = Bundle(source)
    if bundle.precision != "fp32":
        raise ExportError(f"{source} is in {bundle.precision}; give token statistics to the fp32 bundle, and convert that again")
    if bundle.entropy.codebook_size == 1:
        raise ExportError(f"{source} has a codebook of one entry, so its tokens have no statistics; export it without")
    progress("tokens of photographs")
    counts = count(bundle, photographs)
    rows = frequencies(counts)
    tables = EntropyTables.from_bytes((source / "entropy.bin").read_bytes())
    data = replace(tables, token_frequencies=rows).to_bytes()
    with writing(output, sum(file.stat().st_size for file in source.iterdir())) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / "entropy.bin").write_bytes(data)
        entropy = EntropyModel(data)
        if references.NAME in bundle.manifest["files"]:
            (folder / references.NAME).write_bytes(references.rewritten(source / references.NAME, bundle.entropy, entropy))
        content: dict[str, Any] = {**bundle.manifest, "fingerprint": f"{entropy.fingerprint:04x}"}
        content["model"] = {key: value for key, value in bundle.manifest["model"].items() if key != "bits_per_pixel"}
        content["token_statistics"] = {"tiles": int(counts[0].sum()), "bits": round(bits(rows, counts), 4)}
        content["files"] = {name: vouch(folder / name) for name in content["files"]}
        manifest.write(folder, content)
    log.info("%s, of %d packed", content["token_statistics"], entropy.token_bits)


def count(bundle: Bundle, photographs: Iterable[Pixels]) -> NDArray[np.int64]:
    """How often each token stands at each place of a tile, (32, entries)."""
    analysis = open_backend("onnxruntime", torch.get_num_threads()).load(bundle, "analysis")
    counts = np.zeros((TOKENS_PER_TILE, bundle.entropy.codebook_size), np.int64)
    places = np.arange(TOKENS_PER_TILE)
    for pixels in photographs:
        z = analysis({"image": images.pad_to_tiles(pixels)})["z"]
        tokens = bundle.entropy.vq_lookup(z.reshape(-1, bundle.entropy.codebook_dim, TOKENS_PER_TILE))
        np.add.at(counts, (np.broadcast_to(places, tokens.shape), tokens), 1)
    return counts


def frequencies(counts: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Frequencies (32, entries), each at least 1 and 65536 a row, from counts of the same shape; at least two entries."""
    everywhere = counts.sum(0) + 0.5  # so that no token is impossible
    everywhere /= everywhere.sum()
    best = max(STRENGTHS, key=lambda strength: _foretold(counts, everywhere, strength))
    shares = counts + best * everywhere
    free = (SLOTS - counts.shape[1]) * shares / shares.sum(1, keepdims=True)
    rows = 1 + np.floor(free).astype(np.int64)
    for row, rest in zip(rows, free % 1, strict=True):  # what rounding down has left goes where it cut off most
        row[np.argsort(-rest, kind="stable")[: SLOTS - row.sum()]] += 1
    return rows.astype(np.uint16)


def _foretold(counts: NDArray[np.int64], everywhere: NDArray[np.float64], strength: float) -> float:
    """The logarithm of the probability of each token given all others, summed; counts are blended with `strength` tokens."""
    others = counts - 1 + strength * everywhere
    seen = counts > 0
    chance = others / np.maximum(counts.sum(1, keepdims=True) - 1 + strength, 1e-9)
    return float((counts[seen] * np.log(np.maximum(chance[seen], 1e-300))).sum())


def bits(rows: NDArray[np.uint16], counts: NDArray[np.int64]) -> float:
    """The mean bits of a token of these counts, coded with these frequencies; 0 of none."""
    return float((counts * -np.log2(rows / SLOTS)).sum() / max(1, counts.sum()))
