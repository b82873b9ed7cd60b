"""The arrays of a stage on a GPU: they go in and come out where the caller has them, on the GPU or on the host."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dlf.runtime.gpu.arrays import DeviceArray, is_on_device

if TYPE_CHECKING:
    from dlf.runtime.gpu.device import Device

DeviceArrays = dict[str, DeviceArray]


def run_on_gpu(gpu: "Device", inputs: dict[str, Any], run: Callable[[DeviceArrays], DeviceArrays]) -> dict[str, Any]:
    """Run a stage, `run`, on float32 arrays, by name.

    Its outputs are left on the GPU if all inputs were there; then nothing waits. Otherwise they are NumPy arrays.
    """
    with gpu:
        arrays = {
            name: gpu.borrow(array, np.float32) if is_on_device(array) else gpu.upload(np.ascontiguousarray(array, np.float32))
            for name, array in inputs.items()
        }
        outputs = run(arrays)
        if all(is_on_device(array) for array in inputs.values()):
            return dict(outputs)
        return dict(zip(outputs, gpu.read(*outputs.values()), strict=True))
