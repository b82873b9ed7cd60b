"""The parity gate: how much a bundle of lower precision differs from the fp32 bundle that it is made from, on real photographs.

The fp32 bundle runs once. Then each stage of the other bundle gets the inputs of the fp32 stage, and all of them together
encode the photographs and decode the fp32 bundle's files. They run in the form that `dlf.export.emulation` writes, which rounds
every fp16 tensor to fp16 on any machine. What a stage has given is not computed again while it, and all before it, are the same.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from subprocess import CalledProcessError
from typing import TypeVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from dlf.export import emulation
from dlf.export.model.scalar_quantiser import STEPS, coded_mask
from dlf.export.perceptual.lpips import LPIPS
from dlf.export.progress import UNSEEN, Progress, tiles_of
from dlf.export.relative import relative
from dlf.kernels.entropy_bin import EntropyTables
from dlf.kernels.entropy_params_reference import position_class
from dlf.runtime import images
from dlf.runtime.backends import Arrays
from dlf.runtime.backends.choice import open_backend
from dlf.runtime.bundles.bundle import Bundle, file_sha256
from dlf.runtime.errors import ExportError
from dlf.runtime.formats import DECODER_STAGES, STAGES, TOKENS_PER_TILE
from dlf.runtime.images import Pixels

T = TypeVar("T")

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
LARGEST_HALF = 65504.0
# Runs of stages whose results are kept: as many as one comparison and the stages' own figures take.
KEPT_RUNS = 12
FP32 = "fp32"  # what has computed a stage's inputs


@dataclass(frozen=True)
class Bars:
    """The limits that a bundle of lower precision must pass."""

    headroom: float = 4.0  # 65504 over the largest magnitude of each fp16 tensor, at least
    psnr: float = 45.0  # dB between what the two bundles decode the same file to, at least, for every photograph
    tokens: float = 0.01  # share of the tokens that change, at most; the mean of the photographs, as those that follow
    bytes: float = 0.005  # relative change of a file's size, at most
    lpips: float = 0.002  # change of the distance (AlexNet) of picture and original, at most

    def decoder_failures(self, figures: Sequence[Mapping[str, float]]) -> list[str]:
        """The names of the bars that the decoder alone fails, by the photographs' figures of `Gate.compare_decoder`."""
        return self.failures([{"tokens": 0, "bytes": 0, **each} for each in figures])

    def failures(self, figures: Sequence[Mapping[str, float]]) -> list[str]:
        """The names of the bars that the photographs' figures (of `Gate.compare`) fail; a figure that is NaN fails."""
        tokens, size, lpips = (float(np.mean([each[name] for each in figures])) for name in ("tokens", "bytes", "lpips"))
        passed = {
            "psnr": all(each["psnr"] >= self.psnr for each in figures),
            "tokens": tokens <= self.tokens,
            "bytes": abs(size) <= self.bytes,
            "lpips": abs(lpips) <= self.lpips,
        }
        return [name for name, ok in passed.items() if not ok]


@dataclass(frozen=True)
class StageFigures:
    """How far a stage of lower precision differs from fp32 on equal inputs; the worst of the photographs."""

    error: dict[str, float]  # of each output: largest deviation over largest magnitude
    noise: dict[str, float]  # of each output: RMS of the deviation over RMS
    headroom: dict[str, float]  # of each fp16 tensor: 65504 over its largest magnitude


@dataclass(frozen=True)
class _Coded:
    """The result of the entropy core on an output of the analysis."""

    latents: Arrays  # z_hat and y_hat, as synthesis takes them
    tokens: NDArray[np.uint16]
    symbols: NDArray[np.int32]
    size: int  # bytes of the file


@dataclass(frozen=True)
class _Run:
    """What a stage gave for each photograph."""

    digest: str  # of the stage and of all that led to its inputs
    outputs: list[Arrays]
    magnitudes: list[dict[str, float]]  # see `emulation.load`


@dataclass(frozen=True)
class _Sample:
    """A photograph, and the results of the fp32 bundle on it."""

    pixels: Pixels
    inputs: dict[str, Arrays]  # of each stage
    outputs: dict[str, Arrays]
    coded: _Coded
    picture: Pixels
    lpips: float


class Gate:
    """Runs the fp32 bundle on photographs, and compares bundles of lower precision with it.

    Args:
        reference: the fp32 bundle.
        photographs: (H, W, 3) uint8 each.
        threads: CPU threads.
        progress: told of the tiles that stages compute.

    Attributes:
        tiles: of each photograph, how many it has.

    Raises:
        ExportError: the weights of LPIPS cannot be fetched.
    """

    def __init__(self, reference: Path, photographs: Sequence[Pixels], threads: int, progress: Progress = UNSEEN) -> None:
        bundle = Bundle(reference)
        self._entropy = bundle.entropy
        self._tables = EntropyTables.from_bytes((reference / "entropy.bin").read_bytes())
        self._threads = threads
        self._progress = progress
        self.tiles = [tiles_of(pixels) for pixels in photographs]
        self._runs: OrderedDict[str, _Run] = OrderedDict()  # by digest
        self._known: set[str] = set()  # the digests of all, of those too that are not kept any more
        try:
            self._lpips = LPIPS("alexnet").eval()
        except CalledProcessError as error:
            raise ExportError("the parity gate measures LPIPS, whose weights cannot be fetched; run it online once") from error
        self._stages = {name: bundle.stage(name) for name in STAGES}
        backend = open_backend("onnxruntime", threads)
        inputs = {"analysis": [{"image": images.pad_to_tiles(pixels)} for pixels in photographs]}
        outputs = {}
        for name, following in zip(STAGES, (*DECODER_STAGES, None), strict=True):
            stage = backend.load(bundle, name)
            outputs[name] = [self._counted(stage, *pair) for pair in zip(photographs, inputs[name], strict=True)]
            if name == "analysis":
                coded = [self._code(*pair) for pair in zip(photographs, outputs[name], strict=True)]
                inputs["synthesis"] = [each.latents for each in coded]
            elif following:
                inputs[following] = outputs[name]
        self._samples = []
        for i, pixels in enumerate(photographs):
            picture = images.crop_to_pixels(outputs["generator"][i]["image"], *pixels.shape[:2])
            ins, outs = ({name: arrays[i] for name, arrays in each.items()} for each in (inputs, outputs))
            self._samples.append(_Sample(pixels, ins, outs, coded[i], picture, self._distance(pixels, picture)))

    def measure(self, name: str, emulated: Path, photographs: int | None = None) -> StageFigures:
        """Run one stage, as `emulate` wrote it, on the first of the photographs, by default on all."""
        if photographs is None:
            run = self._run(name, emulated, self._fp32_inputs(name), FP32)
        else:  # not kept: a search looks at each once
            run = self._computed("", emulated, self._fp32_inputs(name)[:photographs])
        error: dict[str, float] = {}
        noise: dict[str, float] = {}
        largest: dict[str, float] = {}
        for sample, found, magnitudes in zip(self._samples, run.outputs, run.magnitudes, strict=False):
            for output, expected in sample.outputs[name].items():
                deviation = found[output] - expected
                noise[output] = _worst(noise.get(output, 0), relative(np.linalg.norm(deviation), np.linalg.norm(expected)))
                error[output] = _worst(error.get(output, 0), relative(np.abs(deviation).max(), np.abs(expected).max()))
            for tensor, value in magnitudes.items():
                largest[tensor] = _worst(largest.get(tensor, 0), value)
        headroom = {tensor: LARGEST_HALF / value if value else math.inf for tensor, value in largest.items()}
        return StageFigures(error, noise, headroom)

    def compare(self, emulated: Mapping[str, Path]) -> list[dict[str, float]]:
        """Encode and decode the photographs with all stages, as `emulate` wrote them.

        Returns for each photograph its `width` and `height`; the share of `tokens` and of `symbols` that change, and the
        relative change of the file's `bytes`; `psnr` (dB), between what both bundles decode the fp32 bundle's file to; and
        the change of `lpips`, each bundle decoding its own file.
        """
        analysis = self._run("analysis", emulated["analysis"], self._fp32_inputs("analysis"), FP32)
        coded = [self._code(sample.pixels, latents) for sample, latents in zip(self._samples, analysis.outputs, strict=True)]
        own = self._decode(emulated, DECODER_STAGES, [each.latents for each in coded], analysis.digest)
        same = self.compare_decoder(emulated)
        return [
            {
                "width": sample.pixels.shape[1],
                "height": sample.pixels.shape[0],
                "tokens": float(np.mean(each.tokens != sample.coded.tokens)),
                "symbols": float(np.mean(each.symbols != sample.coded.symbols)),
                "bytes": each.size / sample.coded.size - 1,
                "psnr": of_same["psnr"],
                "lpips": self._distance(sample.pixels, picture) - sample.lpips,
            }
            for sample, each, of_same, picture in zip(self._samples, coded, same, own, strict=True)
        ]

    def compare_decoder(self, emulated: Mapping[str, Path]) -> list[dict[str, float]]:
        """Decode the fp32 bundle's files of the photographs with the decoder's stages, as `emulate` wrote them.

        Returns `psnr` for each photograph, as `compare` does, and the change of `lpips` of that picture.
        """
        pictures = self._decode(emulated, DECODER_STAGES, self._fp32_inputs("synthesis"), FP32)
        return [
            {"psnr": psnr(picture, sample.picture), "lpips": self._distance(sample.pixels, picture) - sample.lpips}
            for sample, picture in zip(self._samples, pictures, strict=True)
        ]

    def disturbance(self, name: str, emulated: Path) -> float:
        """What a stage of the decoder, by itself, changes in the fp32 bundle's pictures: the mean squared error of the worst."""
        following = DECODER_STAGES[DECODER_STAGES.index(name) :]
        pictures = self._decode({**self._stages, name: emulated}, following, self._fp32_inputs(name), FP32)
        return max(_squared_error(picture, sample.picture) for picture, sample in zip(pictures, self._samples, strict=True))

    def _fp32_inputs(self, name: str) -> list[Arrays]:
        return [sample.inputs[name] for sample in self._samples]

    def _decode(self, stages: Mapping[str, Path], names: Sequence[str], arrays: Sequence[Arrays], origin: str) -> list[Pixels]:
        """The pictures of the last stages of the decoder, which are named; `origin` as in `_run`."""
        for name in names:
            run = self._run(name, stages[name], arrays, origin)
            arrays, origin = run.outputs, run.digest
        sizes = [sample.pixels.shape[:2] for sample in self._samples]
        return [images.crop_to_pixels(x["image"], *size) for x, size in zip(arrays, sizes, strict=True)]

    def _run(self, name: str, file: Path, inputs: Sequence[Arrays], origin: str) -> _Run:
        """Run a stage on what the photographs have led to, unless that is known; `origin` tells what computed the inputs."""
        digests = map(file_sha256, (file, *_weights_of(file)))
        digest = sha256(" ".join((origin, name, *digests)).encode()).hexdigest()
        if digest not in self._runs:
            if digest in self._known:
                self._progress.expect(sum(self.tiles))  # once more, since it was not kept
            self._known.add(digest)
            self._runs[digest] = self._computed(digest, file, inputs)
            if len(self._runs) > KEPT_RUNS:
                self._runs.popitem(last=False)
        self._runs.move_to_end(digest)
        return self._runs[digest]

    def _computed(self, digest: str, file: Path, inputs: Sequence[Arrays]) -> _Run:
        stage = emulation.load(file, self._threads)
        results = [self._counted(stage, sample.pixels, each) for sample, each in zip(self._samples, inputs, strict=False)]
        return _Run(digest, *map(list, zip(*results, strict=True)))

    def _counted(self, stage: Callable[[Arrays], T], pixels: Pixels, inputs: Arrays) -> T:
        """What a stage gives for the inputs that a photograph has led to."""
        result = stage(inputs)
        self._progress.advance(tiles_of(pixels))
        return result

    def _code(self, pixels: Pixels, analysed: Arrays) -> _Coded:
        z, y = analysed["z"], analysed["y"]
        _, down, across, dim, _ = z.shape
        tokens = self._entropy.vq_lookup(z.reshape(-1, dim, TOKENS_PER_TILE))
        detail, y_hat = self._entropy.encode_detail_with_reconstruction(y[0])
        file = self._entropy.write_file(pixels.shape[1], pixels.shape[0], tokens, detail)
        z_hat = self._entropy.vq_embed(tokens).reshape(1, down, across, dim, TOKENS_PER_TILE)
        return _Coded({"z_hat": z_hat, "y_hat": y_hat[None]}, tokens, self._symbols(y_hat), len(file))

    def _symbols(self, y_hat: NDArray[np.float32]) -> NDArray[np.int32]:
        """The symbols of a latent (C, H, W), each at its position: y_hat = r / 256 * q and r = 256 * symbol + mean."""
        rows, columns = (position_class(side) for side in y_hat.shape[1:])
        r = np.rint(y_hat / self._tables.q[:, rows[:, None], columns] * 256).astype(np.int32)
        known, symbols = np.zeros_like(r), np.zeros_like(r)
        for step in range(STEPS):
            _, means = self._entropy.prior_step(step, known)
            coded = coded_mask(step, *r.shape).numpy()
            symbols[coded] = (r - means)[coded] >> 8
            known[coded] = r[coded]
        return symbols

    @torch.no_grad()
    def _distance(self, a: Pixels, b: Pixels) -> float:
        x, y = (torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1 for image in (a, b))
        return float(self._lpips(x, y))


def psnr(a: Pixels, b: Pixels) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite for equal pictures."""
    error = _squared_error(a, b)
    return 10 * math.log10(255**2 / error) if error else math.inf


def _squared_error(a: Pixels, b: Pixels) -> float:
    return float(np.mean((a.astype(np.float64) - b) ** 2))


def load_photographs(folder: Path | None) -> list[Pixels]:
    """Load the photographs of a folder, by default the two that scikit-learn ships.

    Raises:
        ExportError: there are none, or scikit-learn is not installed.
        ImageError, SizeLimitError: one cannot be read.
    """
    if folder is None:
        found = find_spec("sklearn")
        if found is None or found.origin is None:
            raise ExportError("the parity gate needs photographs: name a folder with --photographs, or pip install scikit-learn")
        folder = Path(found.origin).parent / "datasets" / "images"
    return [images.load(path) for path in photograph_files(folder)]


def photograph_files(folder: Path) -> list[Path]:
    """The photographs of a folder. Raises ExportError: there are none."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ExportError(f"{folder} is no folder with photographs ({', '.join(sorted(SUFFIXES))}); name another folder")
    return paths


def _weights_of(file: Path) -> list[Path]:
    """The files that hold the weights of a graph."""
    tensors = onnx.load(file, load_external_data=False).graph.initializer
    names = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    return [file.parent / name for name in sorted(names)]


def _worst(a: float, b: float | np.floating) -> float:
    """Return the larger of two numbers, or NaN if one is NaN."""
    return float(np.maximum(a, b))
