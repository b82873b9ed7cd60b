"""Measure this CPU's peak: the rate of large matrix products, and the bandwidth of its memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

_SIDE = 2048  # of the matrices: large enough that their data hardly count
_READ_BYTES = 1 << 28  # far more than any cache holds
_RUNS = 10


def gemm_rate(precision: str, threads: int) -> float:
    """Return operations a second in the fastest of a few products of square matrices; a multiplication with addition is two.

    In fp32 ONNX Runtime and PyTorch are tried: on an AMD EPYC a stage in OpenVINO can be faster than ONNX Runtime's products.

    Args:
        precision: "fp32", or "int8" (of uint8 and int8, summed in int32).
        threads: CPU threads.
    """
    operator, kinds, result = {
        "fp32": ("MatMul", (np.float32, np.float32), TensorProto.FLOAT),
        "int8": ("MatMulInteger", (np.uint8, np.int8), TensorProto.INT32),
    }[precision]
    left, right = (np.ones((_SIDE, _SIDE), kind) for kind in kinds)
    shape = [_SIDE, _SIDE]
    graph = helper.make_graph(
        [helper.make_node(operator, ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", helper.np_dtype_to_tensor_dtype(left.dtype), shape)],
        [helper.make_tensor_value_info("product", result, shape)],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    seconds = _best(lambda: session.run(None, {"left": left}))
    if precision == "fp32":
        tensors = torch.from_numpy(left), torch.from_numpy(right)
        with _torch_threads(threads):
            seconds = min(seconds, _best(lambda: torch.mm(*tensors)))
    return 2 * _SIDE**3 / seconds


def read_bandwidth(threads: int) -> float:
    """Return the bytes a second read from memory in the fastest of a few sums of a large array."""
    values = torch.ones(_READ_BYTES // 4)
    with _torch_threads(threads):
        return _READ_BYTES / _best(values.sum)


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _best(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of a few runs."""
    seconds = []
    for _ in range(_RUNS):
        start = perf_counter()
        work()
        seconds.append(perf_counter() - start)
    return min(seconds)
