"""The whole codec with the stages as torch modules on the GPU: the CPU decodes its files alike, and it the CPU's files."""

import sys
from functools import partial

import numpy as np

from dlf.benchmarks.gpu_check.device_arrays import open_gpu
from dlf.benchmarks.gpu_check.findings import Findings, SkippedError, run_step
from dlf.benchmarks.gpu_check.graphs import untimed
from dlf.benchmarks.gpu_check.torch_stages import TorchStages, decode, encode, random_model
from dlf.runtime.gpu.steps import GPUSteps
from dlf.runtime.images import Pixels
from dlf.runtime.steps import HostSteps, Steps

# Pictures of one padded size go through the stages together. The first size comes back, through graphs.
BATCHES = ([(256, 512), (200, 300)], [(1, 1)], [(256, 512), (200, 300)], [(256, 512), (200, 300)])
LEVELS = 2  # of 255, by which a pixel may differ: the stages compute in floats


def check(findings: Findings, here: TorchStages, there: TorchStages) -> None:
    """Encode on both sides and decode on both.

    Args:
        findings: receives the checks.
        here: the stages on the host.
        there: those whose arrays are on the GPU.
    """
    assert there.gpu is not None
    host = HostSteps(here.entropy, untimed)
    gpu = GPUSteps(there.gpu, there.entropy, there.tables, untimed)
    for turn, sizes in enumerate(BATCHES):
        pixels = [photograph(*size) for size in sizes]
        for writer, stages, steps in (("the CPU", here, host), ("the GPU", there, gpu)):
            name = f"turn {turn}: {len(pixels)} pictures, files of {writer}"
            findings.attempt(name, partial(_decodes_alike, (stages, steps), (here, host), (there, gpu), pixels))


def photograph(height: int, width: int) -> Pixels:
    """Return a picture of waves, (height, width, 3) uint8."""
    rows, cols = np.mgrid[:height, :width]
    waves = [np.sin(rows / 31 + cols / 17 + k) + np.sin(rows / 7 - cols / 13 + k) for k in range(3)]
    return (np.stack(waves, axis=-1) * 60 + 128).astype(np.uint8)


def _decodes_alike(
    writer: tuple[TorchStages, Steps], here: tuple[TorchStages, Steps], there: tuple[TorchStages, Steps], pixels: list[Pixels]
) -> str:
    files = encode(*writer, pixels)
    pairs = zip(decode(*here, files), decode(*there, files), strict=True)
    levels = max(int(np.abs(one.astype(int) - other).max()) for one, other in pairs)
    if levels > LEVELS:
        raise AssertionError(f"pictures differ by {levels} of 255 levels")
    return f"{sum(map(len, files))} bytes, pictures differ by at most {levels} of 255 levels"


def main() -> int:
    """Run the step."""

    def work(findings: Findings) -> None:
        import torch

        gpu = open_gpu()
        if not torch.cuda.is_available():
            raise SkippedError("torch has no CUDA")
        torch.backends.cudnn.allow_tf32 = False
        check(findings, TorchStages.of(random_model()), TorchStages.of(random_model(), gpu, cuda=True))

    return run_step(work)


if __name__ == "__main__":
    sys.exit(main())
