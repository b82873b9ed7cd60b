"""Arrays between dlf and torch, by DLPack and `__cuda_array_interface__`: in this process, other threads, on other streams."""

import sys
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any

import numpy as np

from dlf.benchmarks.gpu_check.device_arrays import open_gpu
from dlf.benchmarks.gpu_check.findings import Findings, SkippedError, run_step
from dlf.runtime.gpu.device import Device

COUNT = 1 << 20


def check(findings: Findings, gpu: Device) -> None:
    """Hand arrays to torch and take its arrays, in each of the ways."""
    try:
        import torch
        from torch.utils.dlpack import from_dlpack
    except ImportError as error:
        raise SkippedError(f"torch cannot be imported ({error})") from error
    if not torch.cuda.is_available():
        raise SkippedError("torch has no CUDA")
    for name, consume in (("DLPack", from_dlpack), ("__cuda_array_interface__", partial(torch.as_tensor, device="cuda"))):
        take = partial(_taken, gpu, consume)
        findings.attempt(f"torch takes an array by {name}", take)
        findings.attempt(f"torch takes an array by {name} in another thread", partial(_in_thread, take))
        findings.attempt(f"torch takes an array by {name} on another stream", partial(_on_stream, torch, take))
    findings.attempt("dlf borrows torch's array", partial(_borrowed, gpu, torch))
    findings.attempt("dlf borrows torch's array of another stream", partial(_on_stream, torch, partial(_borrowed, gpu, torch)))
    findings.attempt("an array outlives the device", partial(_outlives, torch))


def _taken(gpu: Device, consume: Callable[[Any], Any]) -> str:
    values = np.arange(COUNT, dtype=np.float32)
    with gpu:
        array = gpu.empty((COUNT,), np.float32)
        gpu.copy(array, gpu.upload(values))  # is on dlf's stream when torch takes the array
    tensor = consume(array) * 2
    if not np.array_equal(tensor.cpu().numpy(), 2 * values):
        raise AssertionError("torch sees other values")
    return "the values are there"


def _borrowed(gpu: Device, torch: Any) -> str:
    tensor = torch.arange(COUNT, device="cuda", dtype=torch.float32)
    for _ in range(50):  # work that torch's stream is still busy with
        tensor = tensor + 1
    with gpu:
        (values,) = gpu.read(gpu.borrow(tensor, np.float32))
    if not np.array_equal(values, np.arange(COUNT, dtype=np.float32) + 50):
        raise AssertionError("dlf sees other values")
    return "the values are there"


def _outlives(torch: Any) -> str:
    gpu = Device()
    with gpu:
        array = gpu.upload(np.arange(COUNT, dtype=np.float32))
    tensor = torch.utils.dlpack.from_dlpack(array)
    del array
    gpu.close()
    if not torch.equal(tensor, torch.arange(COUNT, device="cuda", dtype=torch.float32)):
        raise AssertionError("torch sees other values")
    return "the values are there"


def _in_thread(work: Callable[[], str]) -> str:
    results: list[str | BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            results.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def _on_stream(torch: Any, work: Callable[[], str]) -> str:
    with torch.cuda.stream(torch.cuda.Stream()):
        return work()


if __name__ == "__main__":
    sys.exit(run_step(lambda findings: check(findings, open_gpu())))
