"""What OpenVINO takes of memory: pages of weights do not stay, and a large stage for one run is compiled for its shapes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.bundle import LoneStage, save_stage
from helpers.c import output, tool
from onnx import helper

from dlf.runtime.backends.choice import open_backend

pytest.importorskip("openvino")

WITHOUT_MAPS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
typedef FILE *open_function(const char *, const char *);
FILE *fopen(const char *name, const char *mode) {
    return strcmp(name, "/proc/self/maps") == 0 ? NULL : ((open_function *)dlsym(RTLD_NEXT, "fopen"))(name, mode);
}
"""
# Prints how many kB of the weights are resident after the first run and after the second.
RUN = """
import sys
from pathlib import Path
import numpy as np
from dlf.runtime.backends.choice import open_backend
from helpers.bundle import LoneStage
path = sys.argv[1]
stage = open_backend("openvino", 1).load(LoneStage(Path(path)), "")
for _ in range(2):
    y = stage({"x": np.ones((2, 1024), np.float32)})["y"]
    assert np.allclose(y, np.float32(1024 / 1000), atol=1e-3)
    entries = Path("/proc/self/smaps").read_text().split(path)[1:]  # each mapping of the model's files
    assert entries
    print(sum(int(entry.partition("\\nRss:")[2].split()[0]) for entry in entries))
"""


def resident(folder: Path, **environment: str) -> list[int]:
    """What RUN prints for a stage of 4 MB of weights, without a word on standard error."""
    path = folder / "linear.onnx"
    w = np.full((1024, 1024), 1e-3, np.float32)
    model = save_stage(path, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 1024]}, {"y": ["n", 1024]}, w=w)
    onnx.save(model, path, save_as_external_data=True, location="linear.onnx.data")
    tests = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", RUN, str(path)],
        env=os.environ | {"PYTHONPATH": tests, "XDG_CACHE_HOME": str(folder)} | environment,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return [int(line) for line in run.stdout.split()]


def test_no_second_copy_of_the_weights_is_resident(tmp_path):
    assert max(resident(tmp_path)) < 100


def test_pages_stay_without_a_word_where_the_system_does_not_tell_what_is_mapped(tmp_path):
    (tmp_path / "shim.c").write_text(WITHOUT_MAPS)
    shim = tmp_path / "shim.so"
    output(tool("cc", "gcc"), "-shared", "-fPIC", str(tmp_path / "shim.c"), "-o", str(shim), "-ldl")
    assert min(resident(tmp_path, LD_PRELOAD=str(shim))) > 1000


@pytest.mark.parametrize(("largest_kept", "other_shapes"), [(0, False), (1 << 20, True)])
def test_only_a_large_stage_for_one_run_is_compiled_for_its_shapes_alone(tmp_path, monkeypatch, largest_kept, other_shapes):
    monkeypatch.setattr("dlf.runtime.backends.openvino.LARGEST_KEPT_STAGE", largest_kept)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save_stage(tmp_path / "twice.onnx", [helper.make_node("Add", ["x", "x"], ["y"])], {"x": ["n", 4]}, {"y": ["n", 4]})
    stage = open_backend("openvino", 1).load_for_one_run(LoneStage(tmp_path / "twice.onnx"), "twice", {"x": (2, 4)})
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(stage({"x": x})["y"], 2 * x)
    if other_shapes:
        np.testing.assert_array_equal(stage({"x": x[:1]})["y"], 2 * x[:1])
    else:
        with pytest.raises(RuntimeError):
            stage({"x": x[:1]})
