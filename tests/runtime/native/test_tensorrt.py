"""The TensorRT backend of libdlf, against stand-ins for NVIDIA's header, driver and library (`tensorrt/`): what it computes,
which engines it takes of those that Python's `EngineCache` keeps, and each refusal. What a GPU does with it cannot be tested so.
"""

import ctypes
import json
import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers import c as helpers_c
from helpers import libraries
from helpers.bundle import CHANNELS, DIM
from helpers.native import Arrays, Backend, Context, Model, ModelOptions
from numpy.typing import NDArray

import dlf
from dlf.runtime import errors
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.gpu import driver
from dlf.runtime.gpu.engines import (
    DEFAULT_PROFILES,
    EngineCache,
    EngineKey,
    Profile,
    Size,
    build_command,
    engine_key,
    gpu_name,
)

NATIVE = Path(__file__).parents[3] / "runtime" / "native"
STAND_IN = Path(__file__).parent / "tensorrt"
TENSORRT = ModuleType("tensorrt")
TENSORRT.__version__ = "10.14.1.48"
GPU = gpu_name(TENSORRT, (8, 9), "Fake L4")
LATENT = ["n", CHANNELS, "8*h", "8*w"]
INPUTS = {
    "analysis": {"image": ["n", 3, "256*h", "256*w"]},
    "synthesis": {"z_hat": ["n", "h", "w", DIM, 32], "y_hat": LATENT},
    "adaptor": {"semantic": ["n", "h", "w", DIM, 32], "detail": LATENT},
    "generator": {"latent": LATENT},
}
IMAGE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
WIDE = (Profile(Size(1, 1, 1), Size(1, 2, 3), Size(1, 8, 8)),)


def stages(name: str, file: Path) -> Callable[[Arrays], Arrays]:
    """What the stand-in's engines compute."""

    def analysis(inputs: Arrays) -> Arrays:
        _, _, height, width = inputs["image"].shape
        y = np.zeros((1, CHANNELS, height // 32, width // 32), np.float32)
        y[:, :3] = 32 * inputs["image"][:, :, ::32, ::32]
        return {"z": np.ones((1, height // 256, width // 256, DIM, 32), np.float32), "y": y}

    return {
        "analysis": analysis,
        "synthesis": lambda inputs: {"semantic": inputs["z_hat"], "detail": inputs["y_hat"]},
        "adaptor": lambda inputs: {"latent": inputs["detail"]},
        "generator": lambda inputs: {"image": inputs["latent"][:, :3].repeat(32, 2).repeat(32, 3) / 32},
    }[name]


def build_library(folder: Path) -> Path:
    """libdlf with the backend, compiled against the stand-in's header; returns its folder."""
    headers = [f"-DTENSORRT_INCLUDE={STAND_IN}", f"-DCUDA_INCLUDE={STAND_IN}", "-DCMAKE_BUILD_TYPE=Debug"]
    helpers_c.output(helpers_c.cmake(), "-S", str(NATIVE), "-B", str(folder), *headers)
    helpers_c.output(helpers_c.cmake(), "--build", str(folder), "--target", "dlf", "-j2")
    return folder


@dataclass(frozen=True)
class Built:
    """What was compiled: libdlf's folder, that of the stand-ins for NVIDIA's libraries, and the program that uses them."""

    libdlf: Path
    nvidia: Path
    drive: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    helpers_c.tool("c++", "build-essential")
    folder = tmp_path_factory.mktemp("tensorrt")
    libdlf = build_library(folder / "libdlf")
    nvidia = folder / "nvidia"
    nvidia.mkdir()
    flags = ["c++", "-std=c++17", "-g", "-Wall", "-Wextra", f"-I{STAND_IN}", f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}"]
    driver, library, drive = nvidia / "libcuda.so.1", nvidia / "libnvinfer.so.10", folder / "drive"
    shared = ["-shared", "-fPIC"]
    helpers_c.output(*flags, *shared, "-Wl,-soname,libcuda.so.1", str(STAND_IN / "fake_cuda.cpp"), "-o", str(driver))
    helpers_c.output(*flags, *shared, str(STAND_IN / "fake_nvinfer.cpp"), str(driver), "-o", str(library))
    libraries = [str(driver), f"-L{libdlf}", "-ldlf", "-pthread", f"-Wl,-rpath,{libdlf}:{nvidia}"]
    helpers_c.output(*flags, str(STAND_IN / "drive.cpp"), *libraries, "-o", str(drive))
    return Built(libdlf, nvidia, drive)


@dataclass
class Machine:
    """A bundle, a user's cache of engines, and the stand-ins.

    Attributes:
        library: what `dlf_model_options.tensorrt` is.
        environment: variables besides.
    """

    built: Built
    folder: Path
    bundle: Path
    library: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def cache(self) -> EngineCache:
        return EngineCache(self.folder / "dlf" / "engines")

    def key(self, stage: str) -> EngineKey:
        return engine_key(Bundle(self.bundle), stage, TENSORRT, GPU)

    def put(self, stage: str, plan: str = "", profiles: tuple[Profile, ...] = WIDE, **key: object) -> Path:
        """Keep an engine as Python does; `key` replaces fields of its key."""
        return self.cache.put(replace(self.key(stage), **key), profiles, (plan or f"fake {stage}").encode()).path

    def run(self, image: NDArray[np.uint8] = IMAGE, threads: int = 1) -> str:
        """Encode and decode; returns what the program says of the backend. A refusal is raised as Python's own."""
        height, width = image.shape[:2]
        (self.folder / "image").write_bytes(image.tobytes())
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DLF_", "FAKE_"))}
        environment = inherited | {"XDG_CACHE_HOME": str(self.folder), "FAKE_LOG": str(self.folder / "log")} | self.environment
        arguments = [self.bundle, self.library, self.folder / "image", width, height, threads, self.folder / "out"]
        run = subprocess.run([self.built.drive, *map(str, arguments)], env=environment, capture_output=True, text=True)
        text, left = run.stdout.rsplit("left: ", 1)
        assert int(left) == 0  # contexts, streams and buffers
        if run.returncode:
            code, message = text.split(" ", 1)
            raise errors.BY_CODE[int(code)](message.strip())
        return text.strip()

    def log(self) -> list[str]:
        """The engines that were loaded and the profiles that were set, in order."""
        return (self.folder / "log").read_text().splitlines()


@pytest.fixture
def machine(built: Built, tmp_path: Path, bundle_copy: Path) -> Machine:
    """A machine whose cache has no engine."""
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    for stage, inputs in INPUTS.items():
        manifest["stages"][stage]["inputs"] = [{"name": name, "shape": shape} for name, shape in inputs.items()]
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    return Machine(built, tmp_path, bundle_copy, str(built.nvidia))


@pytest.fixture
def ready(machine: Machine) -> Machine:
    """A machine with an engine of each stage."""
    for stage in INPUTS:
        machine.put(stage)
    return machine


# ------------------------------------------------------------------------------------------------- what it computes


@pytest.mark.parametrize(("size", "threads"), [((30, 40), 1), ((300, 520), 1), ((257, 30), 2)])
def test_files_and_pictures_are_those_of_the_same_stages_elsewhere(ready, size, threads):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert ready.run(image, threads) == "tensorrt, Fake L4, 10.14.1.48"
    backend = Backend(stages)
    elsewhere = Context(Model(ready.bundle, backend=backend.pointer()))
    data = elsewhere.encode(image)
    assert (ready.folder / "out.dlf").read_bytes() == data
    assert (ready.folder / "out.rgb").read_bytes() == elsewhere.decode(data).tobytes()


def test_each_engine_is_loaded_once(ready):
    ready.run(threads=2)
    assert sorted(line for line in ready.log() if line.startswith("engine")) == sorted(f"engine fake {name}" for name in INPUTS)


def test_weights_are_not_read(ready):
    weights = ready.bundle / "analysis.onnx.data"
    weights.write_bytes(bytes(weights.stat().st_size))
    ready.run()


def test_damaged_graph_is_broken(ready):
    (ready.bundle / "analysis.onnx").write_bytes(b"changed")
    with pytest.raises(dlf.BundleBrokenError, match=r"^Bundle .*: analysis\.onnx has 7 bytes"):
        ready.run()


# ------------------------------------------------------------------------------------------------- which engine is used


@pytest.mark.parametrize("tiles", [(1, 1), (2, 3), (3, 2), (8, 8), (9, 1)])
def test_engine_and_profile_are_those_that_python_finds(ready, tiles):
    for number, profiles in enumerate(
        [
            DEFAULT_PROFILES,
            (*DEFAULT_PROFILES, Profile.static(Size(1, 2, 3))),
            (*DEFAULT_PROFILES, Profile.static(Size(1, 3, 2)), Profile.static(Size(1, 9, 1))),
            (Profile(Size(1, 1, 1), Size(1, 2, 2), Size(1, 3, 3)),),
        ]
    ):
        for stage in INPUTS:
            ready.put(stage, f"fake {stage} {number}", profiles)
    size = Size(1, *tiles)
    image = np.zeros((256 * tiles[0], 256 * tiles[1], 3), np.uint8)
    ready.run(image)
    lines = ready.log()
    for stage in INPUTS:
        found = ready.cache.find(ready.key(stage), size)
        assert f"engine {found.plan.decode()}" in lines
    profiles = [ready.cache.find(ready.key(stage), size).profile for stage in INPUTS]
    assert [line for line in lines if line.startswith("profile")] == [f"profile {index}" for index in profiles]


def test_an_engine_in_tf32_serves_a_stage_that_allows_it(machine):
    manifest = json.loads((machine.bundle / "manifest.json").read_text())
    manifest["stages"] = {name: {**entry, "tf32": True} for name, entry in manifest["stages"].items()}
    (machine.bundle / "manifest.json").write_text(json.dumps(manifest))
    for stage in INPUTS:
        assert machine.key(stage).precision == "tf32"
        machine.put(stage)
    machine.run()


def test_damaged_engine_gives_way_to_another(ready):
    tight = ready.put("analysis", "fake analysis tight", (Profile.static(Size(1, 1, 1)),))
    ready.run()
    assert "engine fake analysis tight" in ready.log()
    tight.write_bytes(b"fake analysis tighT")
    (ready.folder / "log").unlink()
    ready.run()
    assert "engine fake analysis" in ready.log()


def refused(machine: Machine, size: Size | None = None, **image: NDArray[np.uint8]) -> str:
    """The message of a refusal, whose command is the one that Python would run for the stage "analysis"."""
    with pytest.raises(dlf.BackendFailedError) as error:
        machine.run(**image)
    message = str(error.value)
    command = shlex.split(message.split("run: ")[1].split("\n")[0].rstrip(" )."))
    assert command[1:] == build_command(Bundle(machine.bundle), GPU, size, "analysis")[1:]
    assert machine.cache.find(machine.key("analysis"), size or Size(1, 1, 1)).engine is None
    return message


def test_missing_engine_says_how_to_build_it(machine):
    assert f"No engine of stage analysis is in {machine.cache.folder}" in refused(machine)


def test_size_that_no_engine_takes_says_how_to_build_it(ready):
    image = np.zeros((256 * 9, 8, 3), np.uint8)
    assert "256x2304x1 pixels" in refused(ready, Size(1, 9, 1), image=image)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("graph", "0a" * 32),
        ("precision", "fp16"),
        ("library", "tensorrt_rtx"),
        ("version", "10.14.1.47"),
        ("gpu", "sm_89 Fake L40"),
        ("platform", "linux-riscv64"),
        ("build", 0),
    ],
)
def test_engine_of_another_key_is_not_used(machine, name, value):
    path = machine.put("analysis", **{name: value})
    assert f"{path.name} is not used: it was built for {name} {json.dumps(value)}, not" in refused(machine)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def garble(path: Path) -> None:
    path.write_bytes(path.read_bytes().swapcase())


def spoil_sidecar(**fields: object) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        sidecar = path.with_suffix(".json")
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | fields))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut, "has 12 bytes, not 13"),
        (garble, "is not what the SHA-256 in its sidecar says"),
        (lambda path: path.with_suffix(".json").unlink(), "has no sidecar, so that it was not finished"),
        (lambda path: cut(path.with_suffix(".json")), "has a sidecar that lacks or garbles a field"),
        (spoil_sidecar(profiles=[[[1, 1], [1, 1], [1, 1]]]), "has a sidecar that lacks or garbles a field"),
        (spoil_sidecar(bytes="many"), "has a sidecar that lacks or garbles a field"),
        (spoil_sidecar(key={}), "has a sidecar that lacks or garbles a field"),
    ],
)
def test_doubtful_engine_is_not_used(machine, spoil, reason):
    path = machine.put("analysis")
    spoil(path)
    assert f"{path.name} is not used: it {reason}" in refused(machine)


def test_engine_that_the_library_refuses_is_to_be_deleted(machine):
    path = machine.put("analysis", "no engine")
    with pytest.raises(dlf.BackendFailedError, match=rf"load {path}; delete it.*: the magic tag is not an engine's"):
        machine.run()


def test_engine_of_other_types_is_refused(machine):
    machine.put("analysis", "fake half analysis")
    with pytest.raises(dlf.BackendFailedError, match=r"has 'image' not in float32; export the bundle again"):
        machine.run()


def test_bundle_that_does_not_tell_its_shapes_is_broken(machine, toy_bundle):
    manifest = json.loads((toy_bundle / "manifest.json").read_text())
    manifest["stages"]["analysis"]["inputs"] = []
    (machine.bundle / "manifest.json").write_text(json.dumps(manifest))
    machine.put("analysis")
    with pytest.raises(dlf.BundleBrokenError, match=r"does not tell the shapes of its inputs; export the bundle again"):
        machine.run()


@pytest.mark.parametrize(
    "shape", [["n", 3, "256*h"], ["n", 4, "256*h", "256*w"], ["n", 3, "100*h", "256*w"], ["h", 3, "256*h", "w"]]
)
def test_inputs_that_do_not_fit_the_manifest_are_refused(ready, shape):
    path = ready.bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["stages"]["analysis"]["inputs"][0]["shape"] = shape
    path.write_text(json.dumps(manifest))
    with pytest.raises(dlf.BackendFailedError, match="its input 'image' has not the shape"):
        ready.run(np.zeros((512, 8, 3), np.uint8))


def test_input_that_the_codec_does_not_give_is_refused(ready):
    path = ready.bundle / "manifest.json"
    path.write_text(path.read_text().replace('{"name": "image"', '{"name": "picture"'))
    with pytest.raises(dlf.BackendFailedError, match="it has an input 'picture', which the codec does not give"):
        ready.run()


# ------------------------------------------------------------------------------------------- libraries and the device


@pytest.mark.parametrize("place", ["folder", "file", "environment", "linker"])
def test_library_is_found(ready, place):
    folder = ready.built.nvidia
    ready.library = {"folder": str(folder), "file": str(folder / "libnvinfer.so.10")}.get(place, "")
    ready.environment = {"environment": {"DLF_TENSORRT": str(folder)}, "linker": {"LD_LIBRARY_PATH": str(folder)}}.get(place, {})
    assert ready.run().startswith("tensorrt")


@pytest.mark.parametrize("place", ["none", "other"])
def test_missing_library_says_what_to_do(ready, place):
    ready.library = str(ready.folder / "none.so" if place == "none" else ready.built.nvidia / "libcuda.so.1")
    with pytest.raises(dlf.BackendMissingError, match=r"TensorRT's library .*pip install tensorrt\).* in DLF_TENSORRT"):
        ready.run()


@pytest.mark.parametrize(
    ("function", "kind", "fact"),
    [
        ("cuDeviceGet", dlf.BackendFailedError, r"does not start \(CUDA: cuDeviceGet failed \(another failure, 100\)\)"),
        ("createInferRuntime", dlf.BackendFailedError, r"does not start \(.*runtime 10\.14\.1\.48: the versions of header"),
        ("createExecutionContext", dlf.BackendFailedError, "could not run stage analysis .*make a context"),
        ("setOptimizationProfileAsync", dlf.BackendFailedError, "set the profile"),
        ("setInputShape", dlf.BackendFailedError, "take an input of this shape: a shape that no profile has"),
        ("setTensorAddress", dlf.BackendFailedError, "take an input's address"),
        ("inferShapes", dlf.BackendFailedError, "tell the outputs' shapes"),
        ("enqueueV3", dlf.BackendFailedError, "run it"),
        ("cuMemAlloc_v2", errors.OutOfMemoryError, "cuMemAlloc failed"),
        ("cuMemcpyHtoDAsync_v2", dlf.BackendFailedError, r"unspecified launch failure, 719"),
        ("cuMemcpyDtoHAsync_v2", dlf.BackendFailedError, "cuMemcpyDtoHAsync failed"),
        ("cuStreamSynchronize", dlf.BackendFailedError, "cuStreamSynchronize failed"),
        ("cuStreamCreate", dlf.BackendFailedError, "cuStreamCreate failed"),
    ],
)
def test_failure_of_the_device_is_told_and_leaves_nothing(ready, function, kind, fact):
    ready.environment = {"FAKE_FAIL": function}
    with pytest.raises(kind, match=fact):
        ready.run()


@pytest.mark.skipif(driver.missing() is None, reason="there is a GPU")
def test_missing_driver_says_what_to_do(built, toy_bundle):
    lib = ctypes.CDLL(str(built.libdlf / "libdlf.so"))
    lib.dlf_model_message.restype = ctypes.c_char_p
    lib.dlf_model_free.restype = None
    model, options = ctypes.c_void_p(), ModelOptions(tensorrt=str(built.nvidia).encode())
    result = lib.dlf_model_open(str(toy_bundle).encode(), ctypes.byref(options), ctypes.byref(model))
    message = lib.dlf_model_message(model).decode()
    lib.dlf_model_free(model)
    assert result == errors.BackendMissingError.code
    assert message.startswith("NVIDIA's driver cannot be loaded") and "install NVIDIA's driver" in message


@pytest.mark.skipif(driver.missing() is None, reason="there is a GPU")
def test_installed_libdlf_says_what_is_missing(toy_bundle):
    with pytest.raises(dlf.BackendMissingError, match=r"built without TensorRT; build it again|NVIDIA's driver"):
        Model(toy_bundle, tensorrt=b"")


# ----------------------------------------------------------------------------------------- what is taken from NVIDIA

CHECK = """
#include <type_traits>
#include <cuda.h>
#include "backends/cuda_api.h"
template <class T> struct Same { using type = std::conditional_t<std::is_enum_v<T>, int, T>; };
template <class T> struct Same<T *> { using type = typename Same<T>::type *; };
template <class R, class... A> struct Same<R(A...)> { using type = typename Same<R>::type(typename Same<A>::type...); };
#define CHECK(name, parameters) \\
    static_assert(std::is_same_v<Same<decltype(::name)>::type, Same<Result parameters>::type>, #name);
namespace dlf::cuda {
DLF_CUDA_FUNCTIONS(CHECK)
static_assert(kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY && kNonBlocking == CU_STREAM_NON_BLOCKING);
static_assert(kComputeCapabilityMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
static_assert(kComputeCapabilityMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
}
"""


def compile_with_cudas_header(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    triton = find_spec("triton")
    if triton is None or triton.origin is None:
        pytest.skip("triton, which brings cuda.h, is not installed")
    include = Path(triton.origin).parent / "backends" / "nvidia" / "include"
    (folder / "check.cpp").write_text(source)
    command = [helpers_c.tool("c++", "build-essential"), "-std=c++17", "-fsyntax-only", f"-I{include}", f"-I{NATIVE / 'src'}"]
    return subprocess.run([*command, str(folder / "check.cpp")], capture_output=True, text=True)


def test_declarations_are_cudas(tmp_path):
    run = compile_with_cudas_header(CHECK, tmp_path)
    assert run.returncode == 0, run.stderr


def test_another_declaration_would_be_found(tmp_path):
    run = compile_with_cudas_header(f"{CHECK}\nnamespace dlf::cuda {{ CHECK(cuMemFree_v2, (void *)) }}", tmp_path)
    assert "static assertion failed" in run.stderr


def test_library_tells_the_version_that_its_python_module_has():
    rtx = libraries.tensorrt_rtx()
    libs = find_spec("tensorrt_rtx_libs")
    assert libs is not None and libs.origin is not None
    library = ctypes.CDLL(str(next(Path(libs.origin).parent.glob("libtensorrt_rtx.so.*"))))
    parts = [getattr(library, f"getInferLib{part}Version")() for part in ("Major", "Minor", "Patch", "Build")]
    assert ".".join(map(str, parts)) == rtx.__version__
    assert hasattr(library, "createInferRuntime_INTERNAL")
