"""The kernels that come with dlf: all there, whole, and chosen for the GPUs that run them."""

import hashlib
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from dlf.kernels import launches
from dlf.runtime.errors import BackendFailedError, InvalidArgumentError
from dlf.runtime.gpu import cubins
from dlf.runtime.gpu.cubins import Cubin, choose_gpu, packed, read_cubins

COMPILED = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_103", "sm_120", "sm_121")


@pytest.mark.parametrize(
    ("capability", "gpu"),
    [
        ((7, 0), None),  # older than sm_75
        ((7, 5), "sm_75"),
        ((8, 0), "sm_80"),
        ((8, 6), "sm_86"),
        ((8, 7), "sm_86"),  # Jetson Orin
        ((8, 9), "sm_89"),
        ((9, 0), "sm_90"),
        ((10, 0), "sm_100"),
        ((10, 1), None),  # from 9.0 on the code is for one version alone
        ((10, 3), "sm_103"),
        ((12, 0), "sm_120"),
        ((12, 1), "sm_121"),
    ],
)
def test_gpu_choice(capability, gpu):
    assert choose_gpu(capability, COMPILED) == gpu


@pytest.mark.parametrize("width", launches.WIDTHS)
@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1)])
def test_every_kernel_is_there_with_its_arguments(capability, width):
    there = read_cubins(capability, width)
    assert there.keys() == launches.WARPS.keys()
    for name, cubin in there.items():
        assert cubin.data.startswith(b"\x7fELF")
        assert cubin.threads == 32 * launches.WARPS[name]
        types = dict(cubin.arguments)
        assert types.pop("global_scratch") == types.pop("profile_scratch") == "*i8"
        assert types == {argument: launches.ARGUMENT_TYPES[argument] for argument in types}


def test_turing_has_all_but_the_prior():
    assert read_cubins((7, 5), None).keys() == launches.WARPS.keys() - set(launches.PRIOR)
    with pytest.raises(BackendFailedError, match=r"capability 7\.5 and a prior of width 128"):
        read_cubins((7, 5), 128)


def test_a_gpu_without_kernels_is_refused():
    with pytest.raises(BackendFailedError, match=r"no kernels for a GPU of compute capability 7\.0.*sm_80"):
        read_cubins((7, 0), None)


@pytest.mark.parametrize("damage", ["missing", "changed", "no index", "garbled index"])
def test_damaged_kernels_are_refused(tmp_path, damage):
    folder = shutil.copytree(cubins.FOLDER, tmp_path / "cubins", ignore=shutil.ignore_patterns("*-sm_1*", "*-sm_9*"))
    cubin, index = folder / "quantise-sm_80.cubin", folder / "kernels.json"
    {
        "missing": cubin.unlink,
        "changed": lambda: cubin.write_bytes(b"\x00" + cubin.read_bytes()[1:]),
        "no index": index.unlink,
        "garbled index": lambda: index.write_text("{}"),
    }[damage]()
    with pytest.raises(BackendFailedError, match="install dlf again"):
        read_cubins((8, 0), 32, folder)


def test_the_shipped_kernels_are_those_of_the_sources():
    """For one GPU; what was compiled by another Triton cannot be compared."""
    triton = pytest.importorskip("triton")
    from triton import knobs

    from dlf.kernels.compile import compile_kernel

    index = json.loads((cubins.FOLDER / "kernels.json").read_text())
    if index["triton"] != triton.__version__:
        pytest.skip(f"compiled by Triton {index['triton']}, and this is {triton.__version__}")
    if knobs.runtime.interpret:
        pytest.skip("TRITON_INTERPRET is set: Triton compiles nothing")
    shipped = {(entry["kernel"], entry["constants"].get("d")): entry for entry in index["kernels"] if entry["gpu"] == "sm_89"}
    for kernel in launches.WARPS:
        d = 32 if kernel in launches.PRIOR else 0
        _, data = compile_kernel(kernel, d, "sm_89")
        assert hashlib.sha256(data).hexdigest() == shipped[kernel, d or None]["sha256"], kernel


CUBIN = Cubin(b"", "k", (("r", "*i32"), ("count", "i32"), ("global_scratch", "*i8"), ("profile_scratch", "*i8")), 32, 0)


def array(dtype: str = "int32", address: int = 1 << 40) -> SimpleNamespace:
    return SimpleNamespace(dtype=np.dtype(dtype), address=address)


def test_arguments_are_packed_in_order():
    values = packed(CUBIN, {"count": 7, "r": array()})
    assert [(value.dtype.name, int(value)) for value in values] == [
        ("uint64", 1 << 40),
        ("int32", 7),
        ("uint64", 0),
        ("uint64", 0),
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"r": array()}, "takes r, count, not r"),
        ({"r": array(), "count": 1, "step": 2}, "takes r, count"),
        ({"r": array("int16"), "count": 1}, "array of int16, not i32"),
        ({"r": array(address=1 << 40 | 8), "count": 1}, "multiple of 16"),
        ({"r": array(), "count": 1 << 31}, "count is 2147483648"),
        ({"r": array(), "count": -1}, "count is -1"),
    ],
)
def test_other_arguments_are_refused(values, message):
    with pytest.raises(InvalidArgumentError, match=message):
        packed(CUBIN, values)
