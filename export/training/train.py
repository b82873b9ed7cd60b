"""Train the built-in model.

    python -m dlf.export.training.train cache PHOTOGRAPHS... --cache CACHE
    python -m dlf.export.training.train run CONFIG.toml --cache CACHE --run FOLDER

`run` goes through the stages of the configuration and writes into FOLDER: `log.jsonl`; `checkpoint.pt`, from which a killed or
an extended run goes on; `NAME.safetensors` after each stage and `latest.safetensors` in between, in the released layout (moving
average of the weights). A stage ends when its minutes are over, with its learning rate at 0 by then, whatever the machine.
"""

import json
import math
import os
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor

from dlf.export.checkpoint import GROUPS_KEY
from dlf.export.model import Config
from dlf.export.training.data import Photographs, build_cache
from dlf.export.training.optimiser import Optimiser, average, schedule
from dlf.export.training.quantisers import revive
from dlf.export.training.stages import STEP, Losses, Nets, Outcome, Stage

# Tiles down and across of a large crop.
LARGE = ((1, 2), (2, 1), (2, 2))
LARGE_ODDS = (0.45, 0.45, 0.1)
# How fast the weight of the rate follows the rate, and how fast averages of a run move.
RATE_GAIN, RATE_MEMORY, USAGE_MEMORY = 0.03, 0.9, 0.98


@dataclass(frozen=True)
class Settings:
    """A training configuration file."""

    model: Config
    stages: tuple[Stage, ...]
    seed: int
    tiles: int
    warm_up: float
    weight_decay: float
    clip: float
    average_decay: float
    save_minutes: float
    judge_minutes: float
    revive_steps: int

    @staticmethod
    def read(path: Path) -> "Settings":
        """Read a TOML file; an unknown or missing key raises TypeError."""
        content = tomllib.loads(path.read_text())
        model: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.pop("model").items()}
        stages = tuple(Stage(**stage) for stage in content.pop("stage"))
        return Settings(Config(**model), stages, **content)


class Trainer:
    """One run, in memory. `clock` gives seconds; everything random follows from the seed and the number of the step."""

    def __init__(
        self,
        settings: Settings,
        photographs: Photographs,
        folder: Path,
        threads: int = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.photographs, self.folder, self.clock = settings, photographs, folder, clock
        self.threads, self.pool = threads, ThreadPoolExecutor(threads)
        torch.set_num_threads(1)
        torch.manual_seed(settings.seed)
        self.nets = Nets(settings.model)
        # A tenth less time for a step. (PyTorch's type declarations leave this overload out.)
        self.nets.model.vqgan.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.losses = Losses.make()
        self.shadow = {name: tensor.clone() for name, tensor in self.nets.state_dict().items()}
        self.stage, self.step, self.stage_step, self.seconds = 0, 0, 0, 0.0
        self.rate_weight, self.rate_mean = 0.5, 0.0
        self.usage = torch.full((settings.model.codebook_size,), 1 / settings.model.codebook_size)
        self.optimiser: Optimiser | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "checkpoint.pt").exists():
            self._load()

    def run(self) -> None:
        """Train through the stages that are left."""
        while self.stage < len(self.settings.stages):
            stage = self.settings.stages[self.stage]
            if self.optimiser is None:
                self._start(stage)
            last, saved, judged = self.clock(), self.seconds, self.seconds
            while self.seconds < 60 * stage.minutes:
                self._train_step(stage, self.seconds / (60 * stage.minutes))
                now = self.clock()
                self.seconds, last = self.seconds + now - last, now
                if self.seconds - judged > 60 * self.settings.judge_minutes:
                    judged = self.seconds
                    self._judge(stage)
                if self.seconds - saved > 60 * self.settings.save_minutes:
                    saved = self.seconds
                    self._save("latest")
            self._judge(stage)
            self.stage, self.stage_step, self.seconds, self.optimiser = self.stage + 1, 0, 0.0, None
            self._save(stage.name)

    def _start(self, stage: Stage) -> None:
        if stage.kind == "align":
            self.nets.fit_inputs(self.photographs.crops(np.random.default_rng(self.settings.seed), 64, 1, 1))
        if stage.spread_tokens:
            self.nets.spread_tokens(self.photographs.crops(np.random.default_rng(self.settings.seed), 256, 1, 1))
        if stage.kind == "autoencode":
            self.optimiser = Optimiser(
                torch.nn.ModuleList([self.nets.encoder, self.nets.model.vqgan]), stage.lr, self.settings.weight_decay
            )
        else:
            trained: dict[str, list[torch.nn.Module]] = {
                "align": [self.nets.model.hybrid_codec, self.nets.model.prior_fusion],
                "finetune": [self.nets.model],
            }
            self.optimiser = Optimiser(torch.nn.ModuleList(trained[stage.kind]), stage.lr, self.settings.weight_decay)
        # The average starts again from where this stage starts.
        self.shadow = {name: tensor.clone() for name, tensor in self.nets.state_dict().items()}

    def _batch(self, stage: Stage, rng: np.random.Generator) -> Tensor:
        down, across = LARGE[rng.choice(len(LARGE), p=LARGE_ODDS)] if rng.random() < stage.large_crops else (1, 1)
        return self.photographs.crops(rng, max(1, self.settings.tiles // (down * across)), down, across)

    def _train_step(self, stage: Stage, progress: float) -> None:
        assert self.optimiser is not None
        rng = np.random.default_rng((self.settings.seed, self.step))
        torch.manual_seed(int(rng.integers(2**62)))
        outcomes, gradients = self._gradients(stage, self._batch(stage, rng))
        for p, gradient in zip(self.optimiser.params, gradients, strict=True):
            p.grad = gradient
        factor = schedule(progress, self.settings.warm_up)
        norm = self.optimiser.step(factor, self.settings.clip)
        average(self.shadow, self.nets, self.stage_step, self.settings.average_decay)
        log = {k: float(np.mean([float(outcome.log[k]) for outcome in outcomes])) for k in outcomes[0].log}
        if "detail_bpp" in log:
            z, indices = (torch.cat([getattr(outcome, name) for outcome in outcomes]) for name in ("z", "indices"))
            log |= self._steer(stage, log["detail_bpp"]) | self._keep_codebook(indices, z, progress)
        self.step, self.stage_step = self.step + 1, self.stage_step + 1
        self._write({"lr": stage.lr * factor, "norm": norm, **log}, stage)

    def _gradients(self, stage: Stage, images: Tensor) -> tuple[list[Outcome], list[Tensor | None]]:
        """Outcomes of the parts of a batch, and the mean gradient of each parameter.

        Each part has a thread of its own, and the operations inside are not spread over threads: for a network of many
        small operations, on a machine that others use too, that takes a third less time.
        """
        assert self.optimiser is not None
        params = self.optimiser.params
        parts = images.split(-(-len(images) // self.threads))
        seeds = torch.randint(2**31, (len(parts),)).tolist()

        def part(image: Tensor, seed: int) -> tuple[Outcome, tuple[Tensor | None, ...]]:
            rng = torch.Generator().manual_seed(seed)
            with torch.autocast("cpu", torch.bfloat16):
                outcome = STEP[stage.kind](self.nets, self.losses, stage, image, rng)
            loss = (outcome.distortion + self.rate_weight * outcome.rate) * (len(image) / len(images))
            outcome.log["loss"] = loss.detach() * (len(images) / len(image))
            return outcome, torch.autograd.grad(loss, params, allow_unused=True)

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
        used = float((self.usage > 0.1 / len(self.usage)).float().mean())
        return {"codebook_used": used, "codebook_moved": moved}

    @torch.no_grad()
    def _judge(self, stage: Stage) -> None:
        """The stage's loss on photographs that are not trained on, with the averaged weights."""
        kept = {name: tensor.clone() for name, tensor in self.nets.state_dict().items()}
        self.nets.load_state_dict(self.shadow)
        rng = torch.Generator().manual_seed(self.settings.seed)
        full = Stage(**{**asdict(stage), "alexnet": 1.0, "vgg16": 1.0, "vgg16_side": 192})
        batches = self.photographs.judged().split(self.settings.tiles)
        logs = []
        for image in batches:
            with torch.autocast("cpu", torch.bfloat16):
                logs.append(STEP[stage.kind](self.nets, self.losses, full, image, rng).log)
        self.nets.load_state_dict(kept)
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
            "shadow": self.shadow,
            "usage": self.usage,
            "optimiser": self.optimiser.state_dict() if self.optimiser else None,
            "counters": {k: getattr(self, k) for k in self._COUNTERS},
        }
        torch.save(state, self.folder / "checkpoint.part")
        os.replace(self.folder / "checkpoint.part", self.folder / "checkpoint.pt")
        tensors = {k.removeprefix("model."): v.contiguous() for k, v in self.shadow.items() if k.startswith("model.")}
        save_file(tensors, self.folder / "weights.part", {GROUPS_KEY: str(self.settings.model.vqgan_groups)})
        os.replace(self.folder / "weights.part", self.folder / f"{name}.safetensors")

    def _load(self) -> None:
        state = torch.load(self.folder / "checkpoint.pt", weights_only=True)
        self.nets.load_state_dict(state["nets"])
        for k, v in state["counters"].items():
            setattr(self, k, v)
        self.usage = state["usage"]
        if state["optimiser"] is not None:
            self._start_from(state)
        self.shadow = state["shadow"]

    def _start_from(self, state: dict[str, Any]) -> None:
        nets = {name: tensor.clone() for name, tensor in self.nets.state_dict().items()}
        self._start(self.settings.stages[self.stage])
        self.nets.load_state_dict(nets)
        assert self.optimiser is not None
        self.optimiser.load_state_dict(state["optimiser"])


app = typer.Typer(help="Train the built-in model.", no_args_is_help=True, add_completion=False)


@app.command()
def cache(
    folders: Annotated[list[Path], typer.Argument(help="folders of photographs")],
    cache: Annotated[Path, typer.Option(help="folder to write")],
    short_side: Annotated[int, typer.Option(help="of the images, at most")] = 768,
) -> None:
    """Decode photographs once."""
    typer.echo(f"{build_cache(folders, cache, short_side)} images in {cache}")


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="TOML file")],
    cache: Annotated[Path, typer.Option(help="folder made by `cache`")],
    run: Annotated[Path, typer.Option(help="folder of this run; an unfinished run in it goes on")],
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
) -> None:
    """Train, or go on training."""
    Trainer(Settings.read(config), Photographs.open(cache), run, threads).run()


if __name__ == "__main__":
    app()
