"""A bundle's reference outputs: what its stages gave where it was exported, for `dlf doctor` to hold a backend against.

One small file, `references.npz` (docs/format.md, section 4). Each stage has inputs of its own, so that each is judged by itself:
the analysis a picture made from integers; the synthesis the content of a `.dlf` file of that picture, which is stored; the
stages after it activations of which every fourth row and column is stored. Of the outputs, samples are stored.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlf.runtime.errors import BundleBrokenError
from dlf.runtime.formats import DETAIL_PER_TILE, TILE, TOKENS_PER_TILE
from dlf.runtime.images import Pixels, pad_to_tiles
from dlf.runtime.libdlf import EntropyModel, parse_file

if TYPE_CHECKING:
    from dlf.runtime.backends import Arrays

NAME = "references.npz"

DOWN, ACROSS = 1, 2  # tiles of the picture; not square, so that swapped axes show
THINNING = 4  # of stored activations, in both directions
SAMPLES = 512  # of an output, at most

RunStage: TypeAlias = "Callable[[str, Arrays], Arrays]"  # a stage's name and inputs -> its outputs


@dataclass(frozen=True)
class Output:
    """A reference output: its shape, and its values at `_positions` of that shape's size, float32."""

    shape: tuple[int, ...]
    values: NDArray[np.float32]


@dataclass(frozen=True)
class References:
    """What a bundle's reference file holds.

    Attributes:
        file: a `.dlf` file that the bundle's entropy core wrote.
        y_hat_sha256: digest of the detail latent in that file, y_hat as `EntropyModel.decode_detail` gives it.
        activations: stage -> its inputs, where they are stored.
        outputs: stage -> its outputs, by their names.
    """

    file: bytes
    y_hat_sha256: str
    activations: "dict[str, Arrays]"
    outputs: dict[str, dict[str, Output]]

    def inputs(self, stage: str, entropy: EntropyModel) -> "Arrays":
        """What a stage was given; `entropy` is the bundle's.

        Raises:
            DLFError: see `latents`.
        """
        if stage == "analysis":
            return {"image": pad_to_tiles(picture())}
        if stage == "synthesis":
            return latents(entropy, self.file)
        return self.activations[stage]

    def errors(self, stage: str, outputs: "Arrays") -> dict[str, float]:
        """The relative error of each output of a stage: the root of the mean square of the differences, over that of the values.

        It is infinite for an output that is missing, has another shape, or is not finite everywhere.
        """
        return {name: _error(output, outputs.get(name)) for name, output in self.outputs[stage].items()}


def picture() -> Pixels:
    """The picture, (256, 512, 3) uint8: gradients, edges and fine texture, the same on every machine."""
    row, column = np.mgrid[: DOWN * TILE, : ACROSS * TILE]
    return np.stack([row + column >> 2, row * column >> 7, row ^ column], axis=-1).astype(np.uint8)


def latents(entropy: EntropyModel, file: bytes) -> "Arrays":
    """The inputs of `synthesis` in a `.dlf` file of the picture.

    Raises:
        DLFError: what the container and the entropy model raise of a damaged file.
    """
    info = parse_file(file)
    tokens, detail = entropy.read_file(file, info)
    z_hat = entropy.vq_embed(tokens)
    y_hat = entropy.decode_detail(detail, DETAIL_PER_TILE * DOWN, DETAIL_PER_TILE * ACROSS)
    return {"z_hat": z_hat.reshape(1, DOWN, ACROSS, entropy.codebook_dim, TOKENS_PER_TILE), "y_hat": y_hat[None]}


def y_hat_sha256(inputs: "Arrays") -> str:
    """The digest of the detail latent among the inputs of `synthesis`."""
    return hashlib.sha256(inputs["y_hat"].astype("<f4").tobytes()).hexdigest()


def make(entropy: EntropyModel, run: RunStage) -> bytes:
    """The content of a reference file, from running the stages."""
    arrays: dict[str, NDArray[np.generic]] = {}

    def record(stage: str, inputs: "Arrays") -> "Arrays":
        outputs = run(stage, inputs)
        for name, values in outputs.items():
            arrays[f"{stage}.{name}.shape"] = np.array(values.shape, np.int32)
            arrays[f"{stage}.{name}.values"] = values.ravel()[_positions(values.size)]
        return outputs

    def thinned(stage: str, activations: "Arrays") -> "Arrays":
        for name, values in activations.items():
            # These are inputs, so that any rounding will do.
            arrays[f"{stage}.{name}.input"] = values[:, :, ::THINNING, ::THINNING].clip(-65504, 65504).astype(np.float16)
        return {name: _thickened(arrays[f"{stage}.{name}.input"]) for name in activations}

    pixels = picture()
    height, width, _ = pixels.shape
    encoded = record("analysis", {"image": pad_to_tiles(pixels)})
    tokens = entropy.vq_lookup(encoded["z"].reshape(DOWN * ACROSS, -1, TOKENS_PER_TILE))
    file = entropy.write_file(width, height, tokens, entropy.encode_detail(encoded["y"][0]))
    inputs = latents(entropy, file)
    arrays["dlf"] = np.frombuffer(file, np.uint8)
    arrays["y_hat_sha256"] = np.frombuffer(bytes.fromhex(y_hat_sha256(inputs)), np.uint8)
    maps = record("synthesis", inputs)
    latent = record("adaptor", thinned("adaptor", maps))
    record("generator", thinned("generator", latent))
    return _packed(arrays)


def _packed(arrays: dict[str, NDArray[np.generic]]) -> bytes:
    stored = io.BytesIO()
    np.savez_compressed(stored, **arrays)  # type: ignore[arg-type]
    return stored.getvalue()


def rewritten(path: Path, entropy: EntropyModel, new: EntropyModel) -> bytes:
    """The content of a bundle's reference file for another entropy model, which differs in how it codes tokens alone.

    Raises:
        BundleBrokenError: it is no reference file.
    """
    file = read(path).file
    header = parse_file(file)
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    arrays["dlf"] = np.frombuffer(new.write_file(header.width, header.height, *entropy.read_file(file, header)), np.uint8)
    return _packed(arrays)


def read(path: Path) -> References:
    """Read a bundle's reference file.

    Raises:
        BundleBrokenError: it is not one.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        activations: dict[str, Arrays] = {}
        outputs: dict[str, dict[str, Output]] = {}
        for key in arrays:
            stage, _, rest = key.partition(".")
            name, _, kind = rest.partition(".")
            if kind == "input":
                activations.setdefault(stage, {})[name] = _thickened(arrays[key])
            elif kind == "values":
                shape = tuple(int(side) for side in arrays[f"{stage}.{name}.shape"])
                outputs.setdefault(stage, {})[name] = Output(shape, arrays[key])
        return References(arrays["dlf"].tobytes(), arrays["y_hat_sha256"].tobytes().hex(), activations, outputs)
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleBrokenError(
            f"{path} is no file of reference outputs ({type(error).__name__}: {error}); export or download the bundle again."
        ) from error


def _positions(size: int) -> NDArray[np.int64]:
    """Up to `SAMPLES` indexes into `size` values, spread evenly and without a period: multiples of the golden ratio, modulo 1."""
    steps = np.arange(min(size, SAMPLES), dtype=np.uint64) * np.uint64(0x9E3779B9) & np.uint64(0xFFFFFFFF)
    return (steps * np.uint64(size) >> np.uint64(32)).astype(np.int64)


def _thickened(values: NDArray[np.generic]) -> NDArray[np.float32]:
    return values.astype(np.float32).repeat(THINNING, axis=2).repeat(THINNING, axis=3)


def _error(reference: Output, found: NDArray[np.float32] | None) -> float:
    if found is None or found.shape != reference.shape or not np.isfinite(found).all():
        return float("inf")
    expected = reference.values.astype(np.float64)
    deviation = np.linalg.norm(found.ravel()[_positions(found.size)] - expected)
    return float(deviation) / max(float(np.linalg.norm(expected)), 1e-15)
