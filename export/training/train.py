"""Train the built-in model.

    python -m dlf.export.training.train cache PHOTOGRAPHS... --cache CACHE
    python -m dlf.export.training.train run CONFIG.toml --cache CACHE --run FOLDER
    python -m dlf.export.training.train judge WEIGHTS.safetensors PHOTOGRAPHS...

`run` goes through the stages of the configuration, from the weights that it names, and writes into FOLDER: `log.jsonl`;
`checkpoint.pt`, from which a killed, stopped or extended run goes on; `NAME.safetensors` after each stage and
`latest.safetensors` in between, in the released layout (moving average of the weights). A stage ends when its minutes are over,
with its learning rate at 0 by then, whatever the machine.
"""

import json
import math
import os
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from dlf.export.checkpoint import GROUPS_KEY, load_checkpoint
from dlf.export.model import DLF, Config
from dlf.export.training import ablation
from dlf.export.training.ablation import Part
from dlf.export.training.data import Photographs, build_cache, pack_crops, to_tensor
from dlf.export.training.hybrid import Taught
from dlf.export.training.optimiser import Optimiser, average, schedule
from dlf.export.training.quantisers import revive
from dlf.export.training.stages import STEP, Losses, Nets, Outcome, Stage, judge, perplexity
from dlf.runtime import images
from dlf.runtime.errors import CheckpointError, DLFError, ImageError, InvalidArgumentError
from dlf.runtime.formats import TILE

# Tiles down and across of a large crop.
LARGE = ((1, 2), (2, 1))
TAUGHT_AT_ONCE = 8  # tiles
DETAIL_TILES = 32  # whose latents a codebook of the detail begins with
# How fast the weight of the rate follows the rate, and how fast averages of a run move.
RATE_GAIN, RATE_MEMORY, USAGE_MEMORY = 0.03, 0.9, 0.98


@dataclass(frozen=True)
class Settings:
    """A training configuration file."""

    model: Config
    stages: tuple[Stage, ...]
    start: str  # file of weights beside the configuration's folder `runs`
    seed: int
    warm_up: float
    weight_decay: float
    clip: float
    critic_lr: float
    average_decay: float
    save_minutes: float
    judge_minutes: float
    revive_steps: int
    proxy_tiles: int
    taught_tiles: int = 0
    rate_weight: float = 10.0  # at the start
    without: Part | None = None

    @staticmethod
    def read(path: Path, without: Part | None = None) -> "Settings":
        """Read a TOML file, for a model without a part. Raises InvalidArgumentError: it is none, or has a wrong key."""
        try:
            content = tomllib.loads(path.read_text())
            stages = tuple(Stage(**_tuples(stage)) for stage in content.pop("stage"))
            if without is Part.DETAIL:
                stages = tuple(replace(stage, detail_dropout=1.0, detail_bpp=0.0) for stage in stages)
            model = ablation.without(Config(**_tuples(content.pop("model"))), without)
            return Settings(model, stages, str(path.parent / content.pop("start")), **content, without=without)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InvalidArgumentError(
                f"{path} is no training configuration ({type(error).__name__}: {error}); export/training/painted.toml is one."
            ) from error


def _tuples(table: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}


@dataclass(frozen=True)
class Machine:
    """What a run computes on."""

    device: torch.device
    bfloat16: bool = False
    threads: int = 2  # of a CPU
    batch: int = 1  # times the tiles of a stage in a batch


CPU = Machine(torch.device("cpu"))


class Trainer:
    """One run, in memory. `clock` gives seconds; everything random follows from the seed and the number of the step."""

    def __init__(
        self,
        settings: Settings,
        photographs: Photographs,
        folder: Path,
        machine: Machine = CPU,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.photographs, self.folder, self.machine, self.clock = settings, photographs, folder, machine, clock
        self.parts = machine.threads if machine.device.type == "cpu" else 1
        self.pool = ThreadPoolExecutor(self.parts)
        torch.set_num_threads(1)
        torch.manual_seed(settings.seed)
        self.nets = Nets(settings.model, settings.without)
        load_weights(self.nets.model, Path(settings.start), settings.without)
        if settings.without is Part.SCALAR:
            self.nets.start_detail(photographs.crops(np.random.default_rng(settings.seed), DETAIL_TILES, 1, 1))
        self.nets.to(machine.device)
        # A tenth less time for a step. (PyTorch's type declarations leave this overload out.)
        self.nets.model.vqgan.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.losses = Losses.make(machine.device)
        self.stage, self.step, self.stage_step, self.seconds = 0, 0, 0, 0.0
        self.rate_weight, self.rate_mean = settings.rate_weight, 0.0
        self.usage = torch.full((settings.model.codebook_size,), 1 / settings.model.codebook_size, device=machine.device)
        self.optimiser: Optimiser | None = None
        self.taught: Taught | None = None
        self.critic_optimiser = torch.optim.AdamW(self.nets.critic.parameters(), settings.critic_lr, (0.5, 0.9))
        self.shadow = self._weights()
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "checkpoint.pt").exists():
            self._load()

    def run(self, minutes: float = math.inf) -> None:
        """Train through the stages that are left, for at most so many minutes; what is left then waits for another call."""
        begin = self.clock()
        while self.stage < len(self.settings.stages):
            stage = self.settings.stages[self.stage]
            if self.optimiser is None:
                self._start(stage)
            self.taught = self._teach() if stage.kind == "decoder" else None
            last, saved, judged = self.clock(), self.seconds, self.seconds
            while self.seconds < 60 * stage.minutes:
                self._train_step(stage, self.seconds / (60 * stage.minutes))
                now = self.clock()
                self.seconds, last = self.seconds + now - last, now
                if now - begin > 60 * minutes:
                    self._save("latest")
                    return
                if self.seconds - judged > 60 * self.settings.judge_minutes:
                    judged = self.seconds
                    self._judge(stage)
                if self.seconds - saved > 60 * self.settings.save_minutes:
                    saved = self.seconds
                    self._save("latest")
            self._save("latest")
            self._judge(stage)
            self.stage, self.stage_step, self.seconds, self.optimiser = self.stage + 1, 0, 0.0, None
            self._save(stage.name)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.machine.device.type, torch.bfloat16, enabled=self.machine.bfloat16)

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.nets.model.state_dict().items()}

    def _start(self, stage: Stage) -> None:
        torch.manual_seed(self.settings.seed)
        if stage.kind == "proxy":
            rng = np.random.default_rng(self.settings.seed)
            self.nets.start_proxy(self.photographs.crops(rng, self.settings.proxy_tiles, 1, 1).to(self.machine.device))
        if stage.kind == "decoder":
            self.nets.start_decoder()
        self.optimiser = Optimiser(self.nets.trained(stage.kind), stage.lr, self.settings.weight_decay)
        # The average starts again from where this stage starts.
        self.shadow = self._weights()

    def _teach(self) -> Taught:
        """What the teacher makes of `taught_tiles` tiles, the same whenever a run goes on."""

        def part(i: int) -> Taught:
            crops = self.photographs.crops(np.random.default_rng((self.settings.seed, i)), TAUGHT_AT_ONCE, 1, 1)
            return self.nets.teach(crops.to(self.machine.device))

        return Taught.join(list(self.pool.map(part, range(self.settings.taught_tiles // TAUGHT_AT_ONCE))))

    def _batch(self, stage: Stage, rng: np.random.Generator) -> tuple[Tensor, ...]:
        tiles = stage.tiles * self.machine.batch
        if self.taught is not None:
            return self.taught.batch(torch.from_numpy(rng.integers(len(self.taught.z_hat), size=tiles)))
        down, across = LARGE[rng.integers(len(LARGE))] if rng.random() < stage.large_crops else (1, 1)
        return (self.photographs.crops(rng, max(1, tiles // (down * across)), down, across).to(self.machine.device),)

    def _train_step(self, stage: Stage, progress: float) -> None:
        assert self.optimiser is not None
        rng = np.random.default_rng((self.settings.seed, self.step))
        torch.manual_seed(int(rng.integers(2**62)))
        now = stage.at(progress, rng.random())
        outcomes, gradients = self._gradients(now, self._batch(now, rng))
        params = [*self.optimiser.params, *self.nets.critic.parameters()]
        for p, gradient in zip(params, gradients, strict=True):
            p.grad = gradient
        factor = schedule(progress, self.settings.warm_up)
        with self._autocast():
            norm = self.optimiser.step(factor, self.settings.clip)
        if math.isfinite(norm):
            self.critic_optimiser.step()
        self.critic_optimiser.zero_grad()
        average(self.shadow, self.nets.model, self.stage_step, self.settings.average_decay)
        log = _means([outcome.log for outcome in outcomes])
        if outcomes[0].indices is not None:
            z, indices = (torch.cat([getattr(outcome, name) for outcome in outcomes]) for name in ("z", "indices"))
            log |= self._keep_codebook(indices, z, progress)
        if stage.detail_bpp and "detail_bpp" in log:
            log |= self._steer(stage, log["detail_bpp"])
        self.step, self.stage_step = self.step + 1, self.stage_step + 1
        self._write({"lr": stage.lr * factor, "norm": norm, **log}, stage)

    def _gradients(self, stage: Stage, batch: tuple[Tensor, ...]) -> tuple[list[Outcome], list[Tensor | None]]:
        """Outcomes of the parts of a batch, and the mean gradient of each parameter, the model's and the discriminator's.

        On a CPU each part has a thread of its own, and the operations inside are not spread over threads: for a network of many
        small operations, on a machine that others use too, that takes a third less time.
        """
        assert self.optimiser is not None
        params, critic_params = self.optimiser.params, list(self.nets.critic.parameters())
        n = len(batch[0])
        parts = list(zip(*(x.split(-(-n // self.parts)) for x in batch), strict=True))
        seeds = torch.randint(2**31, (len(parts),)).tolist()

        def part(inputs: tuple[Tensor, ...], seed: int) -> tuple[Outcome, tuple[Tensor | None, ...]]:
            rng = torch.Generator().manual_seed(seed)
            with self._autocast():
                outcome = STEP[stage.kind](self.nets, self.losses, stage, inputs, rng)
            share = len(inputs[0]) / n
            loss = (outcome.loss + self.rate_weight * outcome.rate) * share
            own = torch.autograd.grad(loss, params, allow_unused=True)
            if not outcome.critic.requires_grad:
                return outcome, own + (None,) * len(critic_params)
            return outcome, own + torch.autograd.grad(outcome.critic * share, critic_params)

        outcomes, gradients = zip(*self.pool.map(part, parts, seeds), strict=True)
        totals = [sum(g) if g[0] is not None else None for g in zip(*gradients, strict=True)]
        return list(outcomes), totals

    def _steer(self, stage: Stage, bpp: float) -> dict[str, float]:
        """Raise or lower the weight of the rate until the detail stream meets its target."""
        self.rate_mean = bpp if self.stage_step == 0 else RATE_MEMORY * self.rate_mean + (1 - RATE_MEMORY) * bpp
        error = math.log(max(self.rate_mean, 1e-6) / stage.detail_bpp)
        self.rate_weight = min(max(self.rate_weight * math.exp(RATE_GAIN * max(-2.0, min(2.0, error))), 0.01), 1000.0)
        return {"rate_weight": self.rate_weight}

    def _keep_codebook(self, indices: Tensor, z: Tensor, progress: float) -> dict[str, float]:
        """Track how the semantic codebook is used, and move unused entries; not near the end, when they could not settle."""
        share = torch.bincount(indices.flatten(), minlength=len(self.usage)) / indices.numel()
        self.usage.lerp_(share, 1 - USAGE_MEMORY)
        moved = 0
        if (self.stage_step + 1) % self.settings.revive_steps == 0 and progress < 0.7:
            moved = revive(self.nets.model.hybrid_codec.quantize, self.usage, z, threshold=0.05)
        return {"token_perplexity": perplexity(self.usage), "codebook_moved": moved}

    @torch.no_grad()
    def _judge(self, stage: Stage) -> None:
        """Measure on photographs that are not trained on, with the averaged weights."""
        kept = self._weights()
        self.nets.model.load_state_dict(self.shadow)
        batches = self.photographs.judged().to(self.machine.device).split(4)
        logs = list(self.pool.map(lambda image: judge(self.nets.model, self.losses, image)[0], batches))
        self.nets.model.load_state_dict(kept)
        self._write({f"judged_{k}": float(np.mean([float(log[k]) for log in logs])) for k in logs[0]}, stage)

    def _write(self, values: dict[str, float], stage: Stage) -> None:
        line = {"step": self.step, "stage": stage.name, "seconds": round(self.seconds, 1)}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line | {k: float(f"{v:.5g}") for k, v in values.items()}) + "\n")

    _COUNTERS = ("stage", "step", "stage_step", "seconds", "rate_weight", "rate_mean")

    def _save(self, name: str) -> None:
        """The state to go on from, and the averaged weights; each written whole or not at all."""
        state: dict[str, Any] = {
            "nets": self.nets.state_dict(),
            "critic": self.critic_optimiser.state_dict(),
            "shadow": self.shadow,
            "usage": self.usage,
            "optimiser": self.optimiser.state_dict() if self.optimiser else None,
            "counters": {k: getattr(self, k) for k in self._COUNTERS},
        }
        torch.save(state, self.folder / "checkpoint.part")
        os.replace(self.folder / "checkpoint.part", self.folder / "checkpoint.pt")
        tensors = {k: v.contiguous() for k, v in self.shadow.items()}
        save_file(tensors, self.folder / "weights.part", {GROUPS_KEY: str(self.settings.model.vqgan_groups)})
        os.replace(self.folder / "weights.part", self.folder / f"{name}.safetensors")

    def _load(self) -> None:
        state = torch.load(self.folder / "checkpoint.pt", weights_only=True, map_location=self.machine.device)
        self.nets.load_state_dict(state["nets"])
        self.critic_optimiser.load_state_dict(state["critic"])
        for k, v in state["counters"].items():
            setattr(self, k, v)
        self.usage = state["usage"]
        if state["optimiser"] is not None:
            stage = self.settings.stages[self.stage]
            self.optimiser = Optimiser(self.nets.trained(stage.kind), stage.lr, self.settings.weight_decay)
            self.optimiser.load_state_dict(state["optimiser"])
        self.shadow = state["shadow"]


def load_weights(model: DLF, file: Path, without: Part | None = None) -> None:
    """Load the weights of a whole model's file; where its semantic codebook has another size, all except that codebook."""
    missing = ablation.load_into(model, load_file(file), without)
    if missing not in ([], ["hybrid_codec.quantize.embedding.weight"]):
        raise CheckpointError(f"{file} lacks {missing[0]} in the shape of the configuration")


def _means(logs: list[dict[str, Tensor]]) -> dict[str, float]:
    """The means over parts of a batch; a part says NaN of what it has none of (tiles without detail), and all parts may."""
    values = {k: np.array([float(log[k]) for log in logs]) for k in logs[0]}
    return {k: float(np.nanmean(v)) for k, v in values.items() if not np.isnan(v).all()}


app = typer.Typer(help="Train the built-in model.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@contextmanager
def _refusals() -> Iterator[None]:
    """Bad input ends the command with a message."""
    try:
        yield
    except (DLFError, OSError) as error:
        typer.echo(f"train: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def cache(
    folders: Annotated[list[Path], typer.Argument(help="folders of photographs")],
    cache: Annotated[Path, typer.Option(help="folder to write")],
    short_side: Annotated[int, typer.Option(help="of the images, at most")] = 768,
) -> None:
    """Decode photographs once."""
    with _refusals():
        typer.echo(f"{build_cache(folders, cache, short_side)} images in {cache}")


@app.command()
def pack(
    cache: Annotated[Path, typer.Option(help="folder made by `cache`")],
    folder: Annotated[Path, typer.Option(help="folder to write, from which another machine makes its cache")],
    megabytes: Annotated[float, typer.Option(help="that it may hold")] = 45.0,
) -> None:
    """Write crops of the photographs into a folder small enough to travel."""
    with _refusals():
        typer.echo(f"{pack_crops(Photographs.open(cache), folder, int(1e6 * megabytes))} crops in {folder}")


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="TOML file")],
    cache: Annotated[Path, typer.Option(help="folder made by `cache`")],
    run: Annotated[Path, typer.Option(help="folder of this run; an unfinished run in it goes on")],
    threads: Annotated[int, typer.Option(min=1, help="CPU threads")] = 2,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="what computes")] = "cpu",
    bfloat16: Annotated[
        bool, typer.Option(help="on a GPU, or a CPU that has it; elsewhere it is emulated and ten times slower")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="times the tiles of a stage in a batch")] = 1,
    minutes: Annotated[float, typer.Option(min=0, help="after which to stop; the same command then goes on")] = math.inf,
    without: Annotated[Part | None, typer.Option(help="train the model without one of its parts")] = None,
) -> None:
    """Train, or go on training."""
    machine = Machine(torch.device(device), bfloat16, threads, batch)
    with _refusals():
        Trainer(Settings.read(config, without), Photographs.open(cache), run, machine).run(minutes)


@app.command(name="judge")
def judge_weights(
    weights: Annotated[Path, typer.Argument(help="a file of `run`")],
    files: Annotated[list[Path], typer.Argument(help="photographs, whose last rows and columns beyond whole tiles are left out")],
) -> None:
    """Print, as JSON, how photographs come back: whole, from their tokens alone, and with the tokens of the tile before."""
    with _refusals():
        model, losses = load_checkpoint(weights), Losses.make(CPU.device)
        figures, used = [], torch.zeros(model.config.codebook_size)
        for file in files:
            found, tokens = judge(model, losses, to_tensor([_whole_tiles(file)]))
            figures.append(found)
            used += torch.bincount(tokens.flatten(), minlength=len(used))
        typer.echo(json.dumps(_means(figures) | {"token_perplexity": perplexity(used)}, indent=1))


def _whole_tiles(file: Path) -> NDArray[np.uint8]:
    """The pixels of a photograph but for the last rows and columns beyond whole tiles. Raises ImageError."""
    pixels = images.load(file)
    height, width = (side // TILE * TILE for side in pixels.shape[:2])
    if not height or not width:
        raise ImageError(f"{file} is smaller than a tile; give a photograph of at least {TILE}x{TILE} pixels.")
    return pixels[:height, :width]


if __name__ == "__main__":
    app()
