"""The stages in torch, in the released layout with random weights, at 768x512: a baseline for the engines.

In fp32 without and with TF32, in fp16, and in fp16 by `torch.compile`; the median time of each stage by CUDA events, beside the
least time that the roofline allows on a card of that name (`dlf.benchmarks.roofline`).
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dlf.benchmarks.gpu_check.findings import Findings, SkippedError, run_step
from dlf.benchmarks.gpu_check.torch_stages import random_model
from dlf.export.model import DLF, Config
from dlf.export.model.config import RELEASED
from dlf.runtime.formats import STAGES, TOKENS_PER_TILE

DOWN, ACROSS = 2, 3  # tiles of 768x512
WARM_UP, REPEATS = 5, 30
BYTES = {"fp32": 4, "tf32": 4, "fp16": 2}

Timer = Callable[[Callable[[], object]], float]


def measure(findings: Findings, config: Config, device: str, timer: Timer, ways: tuple[str, ...]) -> None:
    """Time each stage in each way: "fp32", "tf32", "fp16", "fp16 compiled".

    Args:
        findings: receives the figures, in milliseconds by way and stage.
        config: the model's sizes.
        device: torch's.
        timer: returns the milliseconds of a piece of work.
        ways: which to measure.
    """
    card = torch.cuda.get_device_name() if device == "cuda" else device
    findings.figures |= {"card": card, "size": f"{256 * ACROSS}x{256 * DOWN}", "repeats": REPEATS, "ms": {}, "floor_ms": {}}
    for way in ways:
        precision = way.split()[0]
        model = random_model(config).to(device, torch.float16 if precision == "fp16" else torch.float32)
        for stage, inputs in stage_inputs(config, device, next(model.parameters()).dtype).items():
            run = getattr(model, stage)
            call = torch.compile(run) if way.endswith("compiled") else run

            def attempt(stage: str = stage, call: Callable[..., Any] = call, inputs: Any = inputs, way: str = way) -> str:
                with torch.inference_mode(), _tf32(way == "tf32"):
                    milliseconds = timer(lambda: call(*inputs))
                findings.figures["ms"].setdefault(way, {})[stage] = milliseconds
                return f"{milliseconds:.2f} ms"

            findings.attempt(f"{way}, {stage}", attempt)
            if (least := floor(model, stage, inputs, card, precision)) is not None:
                findings.figures["floor_ms"].setdefault(precision, {})[stage] = least


def stage_inputs(config: Config, device: str, dtype: torch.dtype) -> dict[str, tuple[torch.Tensor, ...]]:
    """Return random inputs of each stage, for one picture."""

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    maps = 16 * DOWN, 16 * ACROSS
    return {
        "analysis": (random(1, 3, 256 * DOWN, 256 * ACROSS),),
        "synthesis": (
            random(1, DOWN, ACROSS, config.codebook_dim, TOKENS_PER_TILE),
            random(1, config.detail_channels, 8 * DOWN, 8 * ACROSS),
        ),
        "adaptor": (random(1, config.vit_width, *maps), random(1, config.detail_width, *maps)),
        "generator": (random(1, config.vqgan_codebook_dim, *maps),),
    }


def floor(model: DLF, stage: str, inputs: tuple[torch.Tensor, ...], card: str, precision: str) -> float | None:
    """Return the least milliseconds of a stage on a card that gpus.json knows; None for another.

    It is that of the multiplications, or of reading the inputs; the weights are not counted.
    """
    rates = card_rates(card)
    if rates is None or precision not in rates["tera_ops"]:
        return None
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        getattr(model, stage)(*inputs)
    numbers = sum(tensor.numel() for tensor in inputs)
    compute = counter.get_total_flops() / (rates["tera_ops"][precision] * 1e12)
    memory = numbers * BYTES[precision] / (rates["gigabytes_per_second"] * 1e9)
    return 1000 * max(compute, memory)


def card_rates(card: str) -> dict[str, Any] | None:
    """Return the entry of gpus.json for a card by the driver's name of it, such as "NVIDIA H100 80GB HBM3"."""
    stored = json.loads((files("dlf.benchmarks") / "gpus.json").read_text())["gpus"]
    words = set(card.replace("-", " ").split())
    return next((gpu for gpu in stored if set(gpu["driver_words"]) <= words), None)


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def by_events(work: Callable[[], object]) -> float:
    """Return the median milliseconds of a piece of work on the GPU, by CUDA events."""
    for _ in range(WARM_UP):
        work()
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(REPEATS)]
    for start, end in pairs:
        start.record()
        work()
        end.record()
    torch.cuda.synchronize()
    return median(start.elapsed_time(end) for start, end in pairs)


def by_clock(work: Callable[[], object]) -> float:
    """Return the milliseconds of a piece of work on the CPU."""
    start = perf_counter()
    work()
    return 1000 * (perf_counter() - start)


def main() -> int:
    """Run the step."""

    def work(findings: Findings) -> None:
        if not torch.cuda.is_available():
            raise SkippedError("torch has no CUDA")
        measure(findings, RELEASED, "cuda", by_events, ("fp32", "tf32", "fp16", "fp16 compiled"))

    assert tuple(STAGES) == tuple(stage_inputs(RELEASED, "meta", torch.float32))
    return run_step(work)


if __name__ == "__main__":
    sys.exit(main())
