"""The built-in backend: how OpenVINO's library is found, and that its functions are declared as its own headers have them."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.bundle import PORTS, retype, save_stage, seal
from helpers.native import Context, Model, openvino_library
from onnx import helper, numpy_helper

import dlf
from dlf.runtime.formats import LARGEST_KEPT_STAGE

NATIVE = Path(__file__).parents[3] / "runtime" / "native"
GRAY = np.full((4, 4), 128, np.uint8)

pytest.importorskip("openvino")

# Each declaration with what is the same in both: pointers to OpenVINO's own types are as good as pointers to void.
CHECK = """
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <type_traits>
namespace theirs {
#include <openvino/c/openvino.h>
}
#include "backends/openvino_api.h"
namespace ours = dlf::openvino;

template <class T, class = void> struct Same { using type = T; };
template <class T> struct Same<T, std::enable_if_t<std::is_enum_v<T>>> { using type = int; };
template <class T> struct Same<T *> {
    using Base = std::remove_cv_t<T>;
    using Plain = typename Same<Base>::type;
    using Pointee = std::conditional_t<std::is_class_v<Base>, void, Plain>;
    using type = std::conditional_t<std::is_const_v<T>, const Pointee, Pointee> *;
};
template <> struct Same<theirs::ov_shape_t> { using type = ours::Shape; };
template <class R, class... A> struct Same<R(A...)> { using type = typename Same<R>::type(typename Same<A>::type...); };
template <class R, class... A> struct Same<R(A..., ...)> { using type = typename Same<R>::type(typename Same<A>::type..., ...); };

#define CHECK(name, result, parameters) \\
    static_assert(std::is_same_v<Same<decltype(theirs::name)>::type, Same<result parameters>::type>, #name);
namespace dlf::openvino { DLF_OPENVINO_FUNCTIONS(CHECK) }

static_assert(sizeof(theirs::ov_shape_t) == sizeof(ours::Shape));
static_assert(offsetof(theirs::ov_shape_t, rank) == offsetof(ours::Shape, rank));
static_assert(offsetof(theirs::ov_shape_t, dims) == offsetof(ours::Shape, dims));
static_assert(sizeof(theirs::ov_dimension_t) == sizeof(ours::Dimension));
static_assert(offsetof(theirs::ov_dimension_t, min) == offsetof(ours::Dimension, least));
static_assert(offsetof(theirs::ov_dimension_t, max) == offsetof(ours::Dimension, greatest));
static_assert(sizeof(theirs::ov_partial_shape_t) == sizeof(ours::PartialShape));
static_assert(offsetof(theirs::ov_partial_shape_t, rank) == offsetof(ours::PartialShape, rank));
static_assert(offsetof(theirs::ov_partial_shape_t, dims) == offsetof(ours::PartialShape, dims));
static_assert(sizeof(theirs::ov_version_t) == sizeof(ours::Version));
static_assert(offsetof(theirs::ov_version_t, buildNumber) == offsetof(ours::Version, build_number));
static_assert(theirs::OK == 0);
"""


def compiles(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("this test needs c++")
    (folder / "check.cpp").write_text(source)
    includes = [f"-I{openvino_library().parent / 'include'}", f"-I{NATIVE / 'src'}"]
    command = [compiler, "-std=c++17", "-fsyntax-only", *includes, str(folder / "check.cpp")]
    return subprocess.run(command, capture_output=True, text=True)


def test_declarations_are_openvinos(tmp_path):
    run = compiles(CHECK, tmp_path)
    assert run.returncode == 0, run.stderr


def test_another_declaration_would_be_found(tmp_path):
    for wrong in ("CHECK(ov_free, void, (char *))", "CHECK(ov_tensor_data, Status, (const Tensor *, void *))"):
        run = compiles(f"{CHECK}\nnamespace dlf::openvino {{ {wrong} }}", tmp_path)
        assert "static assertion failed" in run.stderr


def test_library_is_found_by_option_or_environment_as_file_or_folder(toy_bundle, monkeypatch):
    folder = openvino_library()
    file = next(folder.glob("libopenvino_c.so*"))
    monkeypatch.delenv("DLF_OPENVINO", raising=False)
    for place in (folder, file):
        assert Model(toy_bundle, openvino=str(place).encode()).info()["backend"] == b"openvino"
    code = f"""
from helpers.native import Model
print(Model({str(toy_bundle)!r}).info()["backend"].decode())
"""
    for place in (folder, file):  # in a process of its own, since os.environ's changes do not reach a library that is loaded
        monkeypatch.setenv("DLF_OPENVINO", str(place))
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
        assert run.stdout == "openvino\n", run.stderr


@pytest.mark.parametrize("place", ["none/libopenvino_c.so", "empty", "libdlf"])
def test_missing_library_says_what_to_do(toy_bundle, tmp_path, place):
    (tmp_path / "empty").mkdir()
    path = str(dlf.runtime.libdlf.library_path()) if place == "libdlf" else str(tmp_path / place)
    with pytest.raises(dlf.BackendMissingError, match=r"pip install openvino.*DLF_OPENVINO"):
        Model(toy_bundle, openvino=path.encode())


def native(folder: Path) -> Context:
    return Context(Model(folder, threads=1, openvino=str(openvino_library()).encode()))


def test_stage_that_is_not_onnx_is_refused(bundle_copy):
    (bundle_copy / "analysis.onnx").write_bytes(b"not a model")
    seal(bundle_copy)
    with pytest.raises(dlf.BackendFailedError, match=r"openvino could not load stage analysis \((?s:.+)\)"):
        native(bundle_copy).encode(GRAY)


def test_stage_that_cannot_run_is_refused(bundle_copy):
    node = helper.make_node("Identity", ["another"], ["z"])
    save_stage(bundle_copy / "analysis.onnx", [node], {"another": ["n"]}, {"z": ["n"]})
    seal(bundle_copy)
    with pytest.raises(dlf.BackendFailedError, match=r"openvino could not run stage analysis \(.*'another'"):
        native(bundle_copy).encode(GRAY)


@pytest.mark.parametrize("output", ["z", "other"])
def test_stage_with_other_outputs_than_the_codec_needs_is_broken(bundle_copy, output):
    node = helper.make_node("Identity", ["image"], [output])
    save_stage(bundle_copy / "analysis.onnx", [node], {"image": ["n", 3, "h", "w"]}, {output: ["n", 3, "h", "w"]})
    seal(bundle_copy)
    with pytest.raises(dlf.BundleBrokenError, match=r"stage analysis.* z\b"):
        native(bundle_copy).encode(GRAY)


IMAGE = np.random.default_rng(0).integers(0, 256, (300, 520), np.uint8)


def _with_large_analysis(folder: Path, *declared: int) -> Path:
    """The bundle, sealed again: its analysis too large to be kept compiled, and declared for one shape where one is given."""
    model = onnx.load(folder / "analysis.onnx")
    for dim, value in zip(model.graph.input[0].type.tensor_type.shape.dim, declared, strict=False):
        dim.dim_value = value
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(LARGEST_KEPT_STAGE // 4, np.float32), "unused"))
    onnx.save(model, folder / "analysis.onnx")
    seal(folder)
    return folder


def _encoded_once(folder: Path) -> list[bytes]:
    """The files that C and Python write where they release each stage after its run."""
    context = Context(Model(folder, threads=1, openvino=str(openvino_library()).encode(), low_memory=1))
    with dlf.Codec(folder, "openvino", threads=1, low_memory=True) as codec:
        return [context.encode(IMAGE), codec.encode(IMAGE)]


def test_large_stage_for_one_run_gives_what_a_kept_one_gives(bundle_copy):
    folder = _with_large_analysis(bundle_copy)
    assert _encoded_once(folder) == 2 * [native(folder).encode(IMAGE)]


def test_large_stage_for_one_run_is_compiled_for_the_shapes_of_that_run(bundle_copy):
    folder = _with_large_analysis(bundle_copy, 1, 3, 256, 256)  # which is not what the image is padded to
    with pytest.raises(dlf.BackendFailedError):
        native(folder).encode(IMAGE)
    assert len(set(_encoded_once(folder))) == 1


def _round_trip(codec, data):
    codec.encode(GRAY)
    codec.decode(data)


@pytest.mark.parametrize("dtype", ["UINT8", "INT32", "FLOAT16", "DOUBLE"])
@pytest.mark.parametrize(("stage", "port"), PORTS)
def test_stage_of_another_type_than_float32_is_refused(bundle_copy, toy_bundle, stage, port, dtype):
    data = native(toy_bundle).encode(GRAY)
    retype(bundle_copy, stage, port, getattr(onnx.TensorProto, dtype))
    with pytest.raises(dlf.BundleBrokenError, match=rf"stage {stage} .*{port}.* not of float32; export"):
        _round_trip(native(bundle_copy), data)
