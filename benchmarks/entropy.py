"""Time the entropy core's prior and coder on one 768x512 image, and compare with PyTorch's float prior.

    python -m dlf.benchmarks.entropy
    python -m dlf.benchmarks.entropy --checkpoint model.ckpt --images kodak      (coded bytes as well)

One process, one thread; the peers run in turn. Speed does not depend on the weights, so they are random, with scales and
latents that make nonzero symbols as rare as in a photograph. The peer is PyTorch's prior in float32 with the rANS coder of
entropy_peer.cpp, written like the coders of research code; it does not compute step 0, whose parameters it keeps.
"""

import ctypes
import dataclasses
import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from statistics import median
from time import perf_counter_ns, thread_time_ns
from types import SimpleNamespace
from typing import Annotated, Any, cast

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dlf.benchmarks import datasets, machine
from dlf.export.bundle import prior_cost
from dlf.export.checkpoint import load_checkpoint
from dlf.export.integer_prior import cdf_indexes, entropy_tables, gaussian_frequencies
from dlf.export.model import DLF
from dlf.export.model.config import RELEASED, SKIP_SCALE
from dlf.export.model.scalar_quantiser import STEPS, ScalarQuantiser, coded_mask, gather_step
from dlf.export.stages import Sample
from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime.errors import InvalidArgumentError
from dlf.runtime.images import load, pad_to_tiles
from dlf.runtime.libdlf import EntropyModel, Limits

HEIGHT, WIDTH = 16, 24  # of the detail map of a 768x512 image
ISAS = ("avx512", "avx2", "neon", "scalar")
SYMBOLS = 50_000  # of the coder's own measurement

Work = Callable[[], object]
Times = dict[str, list[float]]  # "wall", "cpu" -> milliseconds of each run


def random_quantiser(rng: np.random.Generator) -> tuple[ScalarQuantiser, NDArray[np.float32]]:
    """A quantiser of the released layout with random weights, and a latent y (C, H, W) of the size of its scales."""
    torch.manual_seed(0)
    quantiser = ScalarQuantiser(RELEASED).eval().requires_grad_(False)
    channels = quantiser.channels
    scales = np.exp(rng.normal(math.log(0.15), 0.8, channels)).astype(np.float32)
    shared, fusion = (
        quantiser.get_parameter(f"{name}.block.1.conv_out.bias") for name in ("y_spatial_prior.2", "y_prior_fusion.1")
    )
    shared[:channels] += torch.from_numpy(scales)
    fusion[channels : 2 * channels] += torch.from_numpy(scales)
    step_size = quantiser.prior_params(HEIGHT, WIDTH).step_size[0].numpy()
    y = rng.normal(size=(channels, HEIGHT, WIDTH)).astype(np.float32) * scales[:, None, None] * step_size
    return quantiser, y


def integer_tables(quantiser: ScalarQuantiser) -> EntropyTables:
    """Return a quantiser's entropy model. Its codebook is not used here."""
    stand_in = SimpleNamespace(quantize_feat=quantiser, quantize=SimpleNamespace(unit_vectors=torch.ones(1, 1)))
    return entropy_tables(cast(DLF, SimpleNamespace(hybrid_codec=stand_in)))


class PeerCoder:
    """The coder of entropy_peer.cpp, with the authors' CDFs."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("c++")
        if compiler is None:
            raise InvalidArgumentError("the peer's coder needs a C++ compiler; install g++")
        library = folder / "peer.so"
        source = str(files("dlf.benchmarks") / "entropy_peer.cpp")
        subprocess.run([compiler, "-O3", "-std=c++17", "-shared", "-fPIC", source, "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))
        self._library.peer_encode.restype = ctypes.c_size_t
        frequencies = gaussian_frequencies()
        self.bounds = np.array([len(f) // 2 - 1 for f in frequencies], np.int32)
        self._width = max(map(len, frequencies)) + 1
        self._starts = np.zeros((len(frequencies), self._width), np.int32)
        for row, f in zip(self._starts, frequencies, strict=True):
            row[1 : len(f) + 1] = np.cumsum(f, dtype=np.int32)

    def _tables(self) -> tuple[Any, ...]:
        return _at(self._starts), _at(self.bounds), ctypes.c_size_t(self._width)

    def encode(self, symbols: NDArray[np.int32], indexes: NDArray[np.int16]) -> bytes:
        """Return the stream of symbols without those of index -1."""
        out = np.empty(4 + 2 * symbols.size, np.uint8)
        count = ctypes.c_size_t(symbols.size)
        size = self._library.peer_encode(*self._tables(), _at(symbols), _at(indexes), count, _at(out))
        return out[:size].tobytes()

    def decoder(self, data: bytes) -> Callable[[NDArray[np.int16]], NDArray[np.int32]]:
        """Return a function that decodes the stream's next symbols, given their CDF indexes."""
        state = ctypes.c_uint32(0)
        following = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p)

        def decode(indexes: NDArray[np.int16]) -> NDArray[np.int32]:
            symbols = np.empty(indexes.size, np.int32)
            count = ctypes.c_size_t(indexes.size)
            self._library.peer_decode(
                *self._tables(), _at(indexes), count, _at(symbols), ctypes.byref(state), ctypes.byref(following)
            )
            _ = data  # `following` points into it
            return symbols

        return decode


def _at(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class TorchPeer:
    """The float prior in PyTorch, with the peer's coder."""

    def __init__(self, quantiser: ScalarQuantiser, coder: PeerCoder) -> None:
        self.quantiser, self.coder = quantiser, coder
        self.first = quantiser.prior_params(HEIGHT, WIDTH)
        shape = (quantiser.channels, HEIGHT, WIDTH)
        self.masks = [coded_mask(step, *shape) for step in range(STEPS)]

    def prior(self) -> None:
        """Run the three steps that have a network, once each as for one image."""
        r = torch.zeros(1, self.quantiser.channels, HEIGHT, WIDTH)
        for step in range(1, STEPS):
            self.quantiser.step_params(step, r, self.first.common)

    def _steps(self, code: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        """Return y_hat (1, C, H, W); `code(step, scales, means)` returns a step's symbols (1, C, H, W)."""
        r = torch.zeros(1, self.quantiser.channels, HEIGHT, WIDTH)
        scales, means = self.first.scales.expand_as(r), self.first.means.expand_as(r)
        for step in range(STEPS):
            if step:
                scales, means = self.quantiser.step_params(step, r, self.first.common)
            r = torch.where(self.masks[step], code(step, scales, means) + means, r)
        return r * self.first.step_size

    def encode(self, y: Tensor) -> bytes:
        """Return the detail stream of y (1, C, H, W)."""
        scaled = y / self.first.step_size
        symbols, indexes = [], []

        def code(step: int, scales: Tensor, means: Tensor) -> Tensor:
            found = torch.where(scales < SKIP_SCALE, 0, torch.round(scaled - means))
            symbols.append(gather_step(found, step).numpy().ravel())
            indexes.append(cdf_indexes(gather_step(scales, step).numpy().ravel()))
            return found

        self._steps(code)
        return self.coder.encode(np.concatenate(symbols).astype(np.int32), np.concatenate(indexes))

    def decode(self, data: bytes) -> Tensor:
        """Decode a detail stream to y_hat (1, C, H, W)."""
        decode = self.coder.decoder(data)

        def code(step: int, scales: Tensor, means: Tensor) -> Tensor:
            symbols = decode(cdf_indexes(gather_step(scales, step).numpy().ravel()))
            folded = torch.from_numpy(symbols).reshape(1, 1, -1, HEIGHT, WIDTH).float()
            return folded.expand(1, 4, -1, HEIGHT, WIDTH).reshape(scales.shape)

        return self._steps(code)


def core_model(tables: EntropyTables, isa: str) -> EntropyModel | None:
    """Return the entropy model on an instruction set; None if the processor does not have it."""
    os.environ["DLF_ISA"] = isa
    try:
        return EntropyModel(tables.to_bytes())
    except InvalidArgumentError:
        return None
    finally:
        del os.environ["DLF_ISA"]


def nothing_coded(tables: EntropyTables) -> EntropyTables:
    """Return tables with the same prior that code no symbol: decoding with them takes the time of the prior alone."""
    return dataclasses.replace(
        tables,
        thresholds=np.full_like(tables.thresholds, np.iinfo(np.int16).max),
        indexes=np.full_like(tables.indexes, -1),
    )


def take_turns(works: dict[str, Work], rounds: int) -> dict[str, Times]:
    """Run every work once in each round, and return the milliseconds; the first round is not counted."""
    times: dict[str, Times] = {name: {"wall": [], "cpu": []} for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            wall, cpu = perf_counter_ns(), thread_time_ns()
            work()
            spent = {"wall": (perf_counter_ns() - wall) / 1e6, "cpu": (thread_time_ns() - cpu) / 1e6}
            if number:
                for clock, value in spent.items():
                    times[name][clock].append(value)
    return times


def codec_works(quantiser: ScalarQuantiser, y: NDArray[np.float32], coder: PeerCoder) -> dict[str, Work]:
    """Return the works "PEER what": the prior, encoding and decoding of y on each peer."""
    peer = TorchPeer(quantiser, coder)
    batch = torch.from_numpy(y[None])
    stream = peer.encode(batch)
    works: dict[str, Work] = {
        "torch prior": peer.prior,
        "torch encode": lambda: peer.encode(batch),
        "torch decode": lambda: peer.decode(stream),
    }
    tables = integer_tables(quantiser)
    for isa in ISAS:
        model, silent = core_model(tables, isa), core_model(nothing_coded(tables), isa)
        if model is None or silent is None:
            continue
        detail = model.encode_detail(y)
        empty = silent.encode_detail(y)
        works[f"{isa} prior"] = lambda silent=silent, empty=empty: silent.decode_detail(empty, HEIGHT, WIDTH)  # type: ignore[misc]
        works[f"{isa} encode"] = lambda model=model: model.encode_detail(y)  # type: ignore[misc]
        works[f"{isa} decode"] = lambda model=model, detail=detail: model.decode_detail(detail, HEIGHT, WIDTH)  # type: ignore[misc]
    return works


def coder_works(model: EntropyModel, coder: PeerCoder, rng: np.random.Generator) -> dict[str, Work]:
    """Return the works "CODER MIX what": coding SYMBOLS symbols whose scales are mixed in two ways."""
    works: dict[str, Work] = {}
    for mix, scales in (
        ("as in pictures", np.exp(rng.normal(math.log(0.25), 0.8, SYMBOLS)).clip(SKIP_SCALE, 64)),
        ("log-uniform", np.exp(rng.uniform(math.log(SKIP_SCALE), math.log(64), SYMBOLS))),
    ):
        indexes = cdf_indexes(scales.astype(np.float32))
        symbols = np.clip(np.rint(rng.normal(0, scales)), -coder.bounds[indexes], coder.bounds[indexes]).astype(np.int32)
        stream = model.rans_encode(symbols, indexes)
        if coder.encode(symbols, indexes) != stream or (coder.decoder(stream)(indexes) != symbols).any():
            raise AssertionError("the peer's coder is not the same coder")
        works[f"peer, {mix}: encode"] = lambda s=symbols, i=indexes: coder.encode(s, i)  # type: ignore[misc]
        works[f"peer, {mix}: decode"] = lambda d=stream, i=indexes: coder.decoder(d)(i)  # type: ignore[misc]
        works[f"ours, {mix}: encode"] = lambda s=symbols, i=indexes: model.rans_encode(s, i)  # type: ignore[misc]
        works[f"ours, {mix}: decode"] = lambda d=stream, i=indexes: model.rans_decode(d, i)  # type: ignore[misc]
    return works


@torch.inference_mode()
def coded_bytes(checkpoint: Path, images: str) -> dict[str, dict[str, int]]:
    """Return the bytes of each image's detail stream, with the float prior and with the integer one."""
    model = load_checkpoint(checkpoint)
    entropy = EntropyModel(entropy_tables(model).to_bytes())
    result = {}
    for path in datasets.find(images):
        padded = torch.from_numpy(pad_to_tiles(load(path, Limits())))
        outputs = model.analysis(padded)
        result[path.name] = prior_cost(model, entropy, Sample((1, 0, 0), (padded,), outputs))
    return result


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each peer.")] = 100,
    checkpoint: Annotated[Path | None, typer.Option(help="Count coded bytes with this model.")] = None,
    images: Annotated[str | None, typer.Option(help="... on these: kodak, clic2020, or a path.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the entropy core with PyTorch's float prior and a plain coder."""
    if (checkpoint is None) != (images is None):
        raise typer.BadParameter("--checkpoint and --images go together")
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), Console(stderr=True).status("measuring"):
        coder = PeerCoder(Path(folder))
        quantiser, y = random_quantiser(rng)
        model = EntropyModel(integer_tables(quantiser).to_bytes())
        codec = take_turns(codec_works(quantiser, y, coder), rounds)
        symbols = take_turns(coder_works(model, coder, rng), rounds)
    report: dict[str, Any] = {
        "machine": machine.describe(),
        "versions": machine.versions("torch", "numpy"),
        "load": [load_before, os.getloadavg()[0]],
        "image": "768x512",
        "threads": 1,
        "rounds": rounds,
        "detail_bytes": len(model.encode_detail(y)),
        "milliseconds": {name: _summary(times) for name, times in codec.items()},
        "nanoseconds_a_symbol": {name: _summary(times, 1e6 / SYMBOLS) for name, times in symbols.items()},
    }
    if checkpoint and images:
        report["coded_bytes"] = coded_bytes(checkpoint, images)
    if as_json:
        print(json.dumps(report, indent=1))
    else:
        _show(report)


def _summary(times: Times, unit: float = 1) -> dict[str, float]:
    return {
        "median": unit * median(times["wall"]),
        "min": unit * min(times["wall"]),
        "cpu_median": unit * median(times["cpu"]),
    }


def _show(report: dict[str, Any]) -> None:
    console = Console()
    console.print(f"{report['machine']['processor']}, one thread, load {report['load'][0]:.1f} to {report['load'][1]:.1f}")
    for key, title in (("milliseconds", "ms, a 768x512 image"), ("nanoseconds_a_symbol", "ns a symbol, the coder alone")):
        table = Table(title=title)
        for column in ("", "median", "fastest", "median, CPU time"):
            table.add_column(column, justify="right" if column else "left")
        for name, row in report[key].items():
            table.add_row(name, *(f"{row[clock]:.2f}" for clock in ("median", "min", "cpu_median")))
        console.print(table)
    costs = report.get("coded_bytes", {}).values()
    if costs:
        sums = {prior: sum(cost[prior] for cost in costs) for prior in ("float", "integer")}
        more = sums["integer"] / sums["float"] - 1
        console.print(
            f"{len(costs)} images: {sums['float']} bytes with the float prior, {sums['integer']} with ours ({more:+.2%})"
        )


if __name__ == "__main__":
    typer.run(main)
