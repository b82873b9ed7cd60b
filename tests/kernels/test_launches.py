import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from helpers.entropy import random_tables

from dlf.kernels import launches


def test_all_but_the_kernels_is_free_of_triton():
    code = (
        "import sys; from dlf.kernels import entropy_bin, entropy_params_reference, launches, vq_lookup_reference; "
        "print('triton' in sys.modules, 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(("channels", "d"), [(4, 32), (16, 32), (20, 64), (64, 128), (128, 256)])
def test_padded_width(channels, d):
    assert launches.padded_width(channels) == d


def test_a_latent_too_wide_is_refused():
    with pytest.raises(ValueError, match="at most 128 latent channels, not 132"):
        launches.padded_width(132)


def test_packed_weights_have_the_kernels_types_and_sizes():
    packed = launches.pack_prior(random_tables(np.random.default_rng(0), 20))
    kinds = {"i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64}
    arrays = {name: array for name, array in vars(packed).items() if name != "d"}
    assert {name: array.shape for name, array in arrays.items()} == {
        "w": (6, 64 * (8 * 64 + 9)),
        "m": (6, 512),
        "s": (6, 512),
        "b": (6, 512),
        "common": (20, 5, 5),
        "index_of_scale": (65536,),
    }
    for name, array in arrays.items():
        assert array.dtype == kinds[launches.ARGUMENT_TYPES[name].removeprefix("*")]


def test_a_step_is_five_launches_that_hand_t_on():
    record = []
    names = ("r", "x", "t0", "t1", "indexes", "means")
    launches.launch_entropy_params(
        lambda kernel, grid, arguments: record.append((kernel, grid, dict(arguments))),
        launches.pack_prior(random_tables(np.random.default_rng(0), 4)),
        launches.Buffers(*names),
        launches.MapSizes(images=3, channels=4, height=10, width=10),
        step=2,
    )
    assert [kernel for kernel, _, _ in record] == ["prior_begin", *["prior_between"] * 3, "prior_end"]
    assert {grid for _, grid, _ in record} == {(7, 3)}
    for (_, _, before), (_, _, after) in pairwise(record):
        assert after["t"] == before["t_next"]
        assert after["block"] == before["next_block"]
        assert before.get("t") != before["t_next"]  # neighbours are still being read
    assert [arguments.get("block") for _, _, arguments in record] == [None, 1, 3, 4, 5]
