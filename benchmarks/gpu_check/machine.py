"""The machine: its driver and libraries, and whether every shipped kernel for this GPU loads."""

import sys
from functools import partial

from dlf.benchmarks.gpu_check.device_arrays import open_gpu
from dlf.benchmarks.gpu_check.findings import Findings, run_step
from dlf.kernels import launches
from dlf.runtime.doctor import system
from dlf.runtime.gpu import driver
from dlf.runtime.gpu.device import Device


def check(findings: Findings, gpu: Device) -> None:
    """Tell what is there, and load the kernels of each padded width."""
    capability = "{}.{}".format(*gpu.capability)
    findings.figures |= {
        "gpu": gpu.name,
        "capability": capability,
        "driver": driver.identity(),
        "processor": system.processor(),
        "packages": {name: version for name, version in system.packages().items() if version},
    }
    findings.add("a GPU", True, f"{gpu.name}, compute capability {capability}, {driver.identity()}")
    widths = [None] if gpu.capability < (8, 0) else [None, *launches.WIDTHS]
    for width in widths:
        findings.attempt(f"kernels of width {width}" if width else "kernels without a width", partial(_load, gpu, width))


def _load(gpu: Device, width: int | None) -> str:
    with gpu:
        gpu.kernels(width)
    return "loaded"


if __name__ == "__main__":
    sys.exit(run_step(lambda findings: check(findings, open_gpu())))
