"""CUDA graphs: work that is recorded, replayed, and recorded again gives what the CPU gives."""

import sys
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dlf.benchmarks.gpu_check.device_arrays import builtin_tables, open_gpu
from dlf.benchmarks.gpu_check.findings import Findings, run_step
from dlf.kernels.entropy_bin import EntropyTables
from dlf.runtime.gpu.device import Device
from dlf.runtime.gpu.steps import GPUSteps
from dlf.runtime.libdlf import EntropyModel
from dlf.runtime.steps import HostSteps

# (images, tiles down, tiles across), in this order: the second time a size is recorded, from the third on replayed.
SIZES = ((1, 1, 2),) * 4 + ((2, 1, 1),) * 3 + ((1, 1, 2),) * 2


def check(findings: Findings, gpu: Device, tables: EntropyTables) -> None:
    """Encode and decode random latents of several sizes, again and again, beside the CPU."""
    entropy = EntropyModel(tables.to_bytes())
    steps, host = GPUSteps(gpu, entropy, tables, untimed), HostSteps(entropy, untimed)
    for turn, size in enumerate(SIZES):
        work = partial(_turn, gpu, steps, host, latents(entropy, turn, size))
        findings.attempt(f"turn {turn}, {size[0]} images of {size[1]} by {size[2]} tiles", work)


def latents(entropy: EntropyModel, seed: int, size: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return random z (n, h, w, dim, 32) and y (n, C, 8h, 8w), for n images of h by w tiles."""
    images, down, across = size
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(images, down, across, entropy.codebook_dim, 32))
    y = rng.normal(0, 6, (images, entropy.channels, 8 * down, 8 * across))
    return z.astype(np.float32), y.astype(np.float32)


def _turn(gpu: Device, steps: GPUSteps, host: HostSteps, of: tuple[NDArray[np.float32], NDArray[np.float32]]) -> str:
    z, y = of
    down, across = z.shape[1:3]
    with gpu:
        arrays = gpu.upload(z), gpu.upload(y)
    coded, wanted = steps.encode(*arrays), host.encode(z, y)
    if [detail for _, detail in coded] != [detail for _, detail in wanted]:
        raise AssertionError("the detail streams are not the CPU's")
    tokens, details = zip(*wanted, strict=True)
    there, here = steps.decode(tokens, details, down, across), host.decode(tokens, details, down, across)
    with gpu:
        y_hat, z_hat = gpu.read(there["y_hat"], there["z_hat"])
    if not np.array_equal(y_hat, here["y_hat"]) or not np.array_equal(z_hat, here["z_hat"]):
        raise AssertionError("the decoded latents are not the CPU's")
    return "as on the CPU"


def untimed(_: str) -> AbstractContextManager[None]:
    """Measure nothing."""
    return nullcontext()


if __name__ == "__main__":
    sys.exit(run_step(lambda findings: check(findings, open_gpu(), builtin_tables())))
