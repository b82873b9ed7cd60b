"""Runs the Triton kernels on NumPy arrays: in Triton's interpreter or, where there is one, on a GPU."""

import dataclasses
import functools
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dlf.kernels import launches
from dlf.kernels.entropy_bin import EntropyTables

DEVICES = [
    pytest.param("cpu", id="interpreter", marks=pytest.mark.skipif(find_spec("triton") is None, reason="no Triton")),
    pytest.param(
        "cuda", id="gpu", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")]
    ),
]
POINTERS = {
    torch.int8: "*i8",
    torch.int16: "*i16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.float32: "*fp32",
    torch.uint16: "*u16",
    torch.uint8: "*u8",
}


@functools.cache
def interpreter() -> ProcessPoolExecutor:
    """A process in which Triton interprets its kernels: it decides that once, when it is imported."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_interpret)


def _interpret() -> None:
    os.environ["TRITON_INTERPRET"] = "1"


def run(device: str, function: Any, *arguments: Any, **sizes: Any) -> Any:
    """function(device, *arguments, **sizes), where the device is "cuda" or "cpu", which is Triton's interpreter."""
    if device == "cuda":
        return function(device, *arguments, **sizes)
    return interpreter().submit(function, device, *arguments, **sizes).result()


def entropy_params(
    device: str, tables: EntropyTables, step: int, r: NDArray[np.int32], tile: int = launches.POSITIONS
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Like the reference's, for r of shape (images, channels, height, width); `tile` positions a program."""
    with mock.patch.object(launches, "POSITIONS", tile):
        return _entropy_params(device, tables, step, r)


def _entropy_params(
    device: str, tables: EntropyTables, step: int, r: NDArray[np.int32]
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    sizes = launches.MapSizes(*r.shape)
    packed = launches.pack_prior(tables)
    on_device = {name: to_device(value, device) for name, value in vars(packed).items() if name != "d"}
    scratch = (sizes.images, sizes.height * sizes.width, packed.d)
    # Filled with what must not be seen: the kernels have to write whatever they read.
    x, t, t_next = (torch.full(scratch, 12345, dtype=torch.int16, device=device) for _ in range(3))
    indexes, means = (torch.full(r.shape, 12345, dtype=torch.int16, device=device) for _ in range(2))
    launches.launch_entropy_params(
        launcher(packed.d),
        launches.PriorWeights(packed.d, **on_device),
        launches.Buffers(to_device(r, device), x, t, t_next, indexes, means),
        sizes,
        step,
    )
    return indexes.cpu().numpy(), means.cpu().numpy()


def vq_lookup(device: str, codebook: NDArray[np.float32], z: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Like the reference's."""
    tokens = torch.full((len(z), 32), 54321, dtype=torch.uint16, device=device)
    columns = launches.Codebook(to_device(codebook.T, device), *codebook.shape)
    launches.launch_vq_lookup(launcher(), columns, to_device(z, device), tokens, len(z))
    return tokens.cpu().numpy()


def to_device(array: NDArray[Any], device: str) -> torch.Tensor:
    """A copy on the device, dense and row-major: torch would keep the strides."""
    return torch.tensor(np.ascontiguousarray(array), device=device)


def launcher(d: int = 0) -> launches.Launch:
    """Launches by Triton's just-in-time compiler or interpreter, and sees to it that arguments have the types that
    the ahead-of-time compiler assumes. `d` is the prior's padded width."""
    from dlf.kernels.compile import function

    def launch(kernel: str, grid: tuple[int, int], arguments: Mapping[str, Any]) -> None:
        for name, value in arguments.items():
            assert launches.ARGUMENT_TYPES[name] == ("i32" if isinstance(value, int) else POINTERS[value.dtype]), name
        function(kernel)[grid](**arguments, **launches.constants(kernel, d), num_warps=launches.WARPS[kernel])

    return launch


def call(device: str, name: str, *arguments: Any, **sizes: Any) -> list[Any]:
    """launches.NAME(launch, *arguments, **sizes): the arguments, arrays or dataclasses of arrays, as they are afterwards."""
    there = [_each(argument, lambda array: to_device(array, device)) for argument in arguments]
    getattr(launches, name)(launcher(), *there, **sizes)
    return [_each(argument, lambda tensor: tensor.cpu().numpy()) for argument in there]


def _each(argument: Any, convert: Callable[[Any], Any]) -> Any:
    if not dataclasses.is_dataclass(argument):
        return convert(argument)
    return type(argument)(**{name: None if value is None else convert(value) for name, value in vars(argument).items()})
