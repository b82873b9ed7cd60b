"""The TensorRT backend: its use of TensorRT's interface, compared with the real module's, over a simulated engine; its messages
where something is missing."""

import ast
import importlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
from helpers import gpu as helpers_gpu
from helpers import libraries

import dlf
from dlf.runtime import backends
from dlf.runtime.backends import choice, gpu_choice
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.gpu import driver
from dlf.runtime.gpu import engines as engine_cache
from dlf.runtime.gpu.engines import Engine, Lookup, Profile, Size

trt = libraries.tensorrt_rtx()

SOURCE = Path(backends.__file__).with_name("tensorrt.py")
# The variables of tensorrt.py that hold objects of TensorRT's.
CLASSES = {"engine": trt.ICudaEngine, "context": trt.IExecutionContext, "config": trt.IRuntimeConfig, "_runtime": trt.Runtime}
CLASSES |= {"_kernels": trt.IRuntimeCache, "_context": trt.IExecutionContext, "_engine": trt.ICudaEngine}


# --------------------------------------------------------------------------------------------- the interface that is used


def dotted(node: ast.AST) -> list[str]:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return [node.id, *parts] if isinstance(node, ast.Name) else []


def uses() -> tuple[set[str], set[tuple[str, str, int | None]]]:
    """Names of the module, such as "ILogger.Severity"; and (variable, attribute, arguments if it is called) of its objects."""
    names, members, calls = set(), set(), {}
    tree = ast.parse(SOURCE.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            calls[node.func] = len(node.args)
    for node in ast.walk(tree):
        match dotted(node):
            case ["self", "_trt", *rest] | ["library", *rest] if rest and not rest[0].startswith("__"):
                names.add(".".join(rest))
            case [variable, attribute] | ["self", variable, attribute] if variable in CLASSES:
                members.add((variable, attribute, calls.get(node)))
    return names, members


def test_every_name_of_tensorrt_exists():
    names, members = uses()
    assert {"Runtime", "ILogger.Severity", "ExecutionContextAllocationStrategy.USER_MANAGED", "TensorIOMode.OUTPUT"} <= names
    for name in names:
        found = trt
        for part in name.split("."):
            assert hasattr(found, part), name
            found = getattr(found, part)
    assert len(members) >= 14
    for variable, attribute, _ in members:
        assert hasattr(CLASSES[variable], attribute), (variable, attribute)
    severities = {
        node.attr for node in ast.walk(ast.parse(SOURCE.read_text())) if dotted(node)[:1] == ["severity"] and dotted(node)[1:]
    }
    assert severities == set(trt.ILogger.Severity.__members__)


def test_every_call_has_as_many_arguments_as_tensorrt_takes():
    """By the signatures in the bindings' documentation: name(self: ..., a: ..., b: ... = ...)."""
    checked = 0
    for variable, attribute, given in uses()[1]:
        documentation = getattr(CLASSES[variable], attribute).__doc__ or ""
        signatures = re.findall(rf"{attribute}\((self[^)]*)\)", documentation)
        if given is None or not signatures:
            continue
        checked += 1
        fits = []
        for signature in signatures:
            parameters = signature.split(", ")[1:]
            required = [parameter for parameter in parameters if "=" not in parameter]
            fits.append(len(required) <= given <= len(parameters))
        assert any(fits), (attribute, signatures)
    assert checked >= 12


def test_the_messages_go_to_the_log(tensorrt, caplog):
    logger = tensorrt._logger(trt)
    assert isinstance(logger, trt.ILogger)
    with caplog.at_level("DEBUG", "dlf"):
        for severity in trt.ILogger.Severity.__members__.values():
            logger.log(severity, f"about {severity.name}")
    assert {record.getMessage(): record.levelname for record in caplog.records} == {
        "tensorrt_rtx: about INTERNAL_ERROR": "ERROR",
        "tensorrt_rtx: about ERROR": "ERROR",
        "tensorrt_rtx: about WARNING": "WARNING",
        "tensorrt_rtx: about INFO": "DEBUG",
    }


# ------------------------------------------------------------------------------------------- with an engine that is none


class Engines:
    """TensorRT with engines that double their input: objects that have the real classes' attributes and no others."""

    def __init__(self, gpu: helpers_gpu.FakeGPU) -> None:
        self.gpu = gpu
        self.contexts: list[Any] = []
        self.loaded: list[bytes] = []
        self.scratch_bytes = 100
        self.capturable = True
        self.compiled = b"kernels"  # what a runtime cache holds after a run
        self.known: list[bytes] = []  # what runtime caches were given
        self.takes_known = True
        self.library = SimpleNamespace(**{name: getattr(trt, name) for name in dir(trt) if not name.startswith("__")})
        self.library.__name__, self.library.__version__ = trt.__name__, trt.__version__
        self.library.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=self._engine)

    def _engine(self, plan: bytes) -> Any:
        self.loaded.append(plan)
        if plan == b"broken":
            return None
        engine = create_autospec(trt.ICudaEngine, instance=True)
        engine.num_io_tensors = 2
        engine.get_tensor_name.side_effect = ["image", "y"].__getitem__
        engine.get_tensor_mode.side_effect = {"image": trt.TensorIOMode.INPUT, "y": trt.TensorIOMode.OUTPUT}.__getitem__
        engine.get_tensor_dtype.side_effect = lambda name: trt.float16 if plan == b"half" else trt.float32
        engine.create_runtime_config.side_effect = self._config
        engine.create_execution_context.side_effect = self._context
        return engine

    def _config(self) -> Any:
        config = create_autospec(trt.IRuntimeConfig, instance=True)
        cache = create_autospec(trt.IRuntimeCache, instance=True)
        cache.deserialize.side_effect = lambda known: self.known.append(known) or self.takes_known
        cache.serialize.side_effect = lambda: bytearray(self.compiled)
        config.create_runtime_cache.return_value = cache
        config.set_runtime_cache.return_value = True
        return config

    def _context(self, config: Any) -> Any:
        config.set_runtime_cache.assert_called_once()
        config.set_execution_context_allocation_strategy.assert_called_once_with(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        assert config.dynamic_shapes_kernel_specialization_strategy == trt.DynamicShapesKernelSpecializationStrategy.EAGER
        context = create_autospec(trt.IExecutionContext, instance=True)
        shapes: dict[str, tuple[int, ...]] = {}
        addresses: dict[str, int] = {}
        memory: list[int] = []
        context.set_optimization_profile_async.return_value = True
        context.set_input_shape.side_effect = lambda name, shape: shapes.update({name: shape}) or True
        context.infer_shapes.side_effect = lambda: [] if shapes else ["image"]
        context.get_tensor_shape.side_effect = lambda name: shapes["image"]
        context.update_device_memory_size_for_shapes.side_effect = lambda: self.scratch_bytes
        context.set_tensor_address.side_effect = lambda name, address: addresses.update({name: address}) or True
        context.set_device_memory.side_effect = lambda address, size: memory.__setitem__(slice(None), [address, size])
        context.is_stream_capturable.side_effect = lambda stream: self.capturable

        def execute(stream: int) -> bool:
            address, size = memory
            assert size >= self.scratch_bytes and all(each % 256 == 0 for each in (*addresses.values(), address))
            source, to, shape = addresses["image"], addresses["y"], shapes["image"]
            self.gpu.do(
                lambda: helpers_gpu.at(to, shape, np.float32).__setitem__(..., 2 * helpers_gpu.at(source, shape, np.float32))
            )
            return True

        context.execute_async_v3.side_effect = execute
        self.contexts.append(context)
        return context


@pytest.fixture
def gpu() -> helpers_gpu.FakeGPU:
    return helpers_gpu.FakeGPU()


@pytest.fixture
def tensorrt(gpu, monkeypatch):
    """The backend's module, on a GPU that is not there."""
    helpers_gpu.install(monkeypatch, gpu)
    return importlib.import_module("dlf.runtime.backends.tensorrt")


@pytest.fixture
def engines(gpu, tensorrt, monkeypatch) -> Engines:
    engines = Engines(gpu)
    monkeypatch.setattr("subprocess.run", lambda command, **_: pytest.fail(f"this would build an engine: {command}"))
    monkeypatch.setattr(tensorrt.tensorrt_library, "load", lambda: engines.library)
    monkeypatch.setattr(tensorrt.tensorrt_library, "is_rtx", lambda library: True)
    return engines


class Cache:
    """An engine cache that has engines of these profiles."""

    def __init__(self, *profiles: Profile, plan: bytes = b"plan", folder: Path = Path("nowhere")) -> None:
        self.profiles, self.plan, self.folder, self.asked = profiles, plan, folder, []

    def find(self, key, size: Size) -> Lookup:
        self.asked.append((key, size))
        index = engine_cache.choose_profile(self.profiles, size)
        if index is None:
            return Lookup(None, b"", 0, ("There is none.",))
        return Lookup(Engine(self.folder / "a.engine", key, self.profiles, 4, "", {}), self.plan, index, ())


ANY_SIZE = Profile(Size(1, 1, 1), Size(1, 2, 2), Size(16, 16, 16))


@pytest.fixture
def bundle(bundle_copy) -> Path:
    """The toy bundle, with an analysis stage whose inputs the manifest describes."""
    path = bundle_copy / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["stages"]["analysis"]["inputs"] = [{"name": "image", "shape": ["n", 3, "256*h", "256*w"]}]
    path.write_text(json.dumps(manifest))
    return bundle_copy


@pytest.fixture
def backend(tensorrt, engines):
    backend = tensorrt.open_backend(None)
    backend._cache = Cache(ANY_SIZE)
    return backend


@pytest.fixture
def stage(backend, bundle):
    return backend.load(Bundle(bundle), "analysis")


def image(n: int = 1, h: int = 1, w: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3, 256 * h, 256 * w)).astype(np.float32)


def test_host_arrays_give_host_arrays(stage, gpu):
    for seed in range(4):
        batch = image(seed=seed)
        outputs = stage({"image": batch})
        assert list(outputs) == ["y"]
        np.testing.assert_array_equal(outputs["y"], 2 * batch)
    assert gpu.synchronisations == 4
    assert gpu.graphs == [3]


def test_device_arrays_give_device_arrays_without_waiting(stage, backend, gpu):
    with backend.gpu as device:
        there = device.upload(image())
    outputs = [stage({"image": there})["y"] for _ in range(2)]
    again = stage({"image": outputs[0]})["y"]
    assert gpu.synchronisations == 0
    with backend.gpu as device:
        for got, factor in ((outputs[0], 2), (outputs[1], 2), (again, 4)):
            np.testing.assert_array_equal(device.read(got)[0], factor * image())


def test_each_size_has_a_context_and_they_share_scratch_memory(stage, engines):
    for _ in range(3):
        for n, h, w in [(1, 1, 1), (2, 1, 1), (1, 1, 2)]:
            np.testing.assert_array_equal(stage({"image": image(n, h, w)})["y"], 2 * image(n, h, w))
    assert len(engines.loaded) == 1
    assert len(engines.contexts) == 3
    for context in engines.contexts:
        context.set_input_shape.assert_called_once()
        assert len({call.args[0] for call in context.set_device_memory.call_args_list}) == 1
    assert len({context.set_device_memory.call_args.args[0] for context in engines.contexts}) == 1


def test_addresses_are_set_only_when_they_change(stage, backend, engines, gpu):
    with backend.gpu as device:
        one, other = device.upload(image()), device.upload(image(seed=1))
    for _ in range(3):
        stage({"image": one})
    (context,) = engines.contexts
    assert context.set_tensor_address.call_count == 2  # input and output
    assert context.execute_async_v3.call_count == 2  # as it came, and to be recorded
    stage({"image": other})
    assert context.set_tensor_address.call_count == 4
    assert gpu.graphs == [None]


def test_scratch_memory_that_grows_has_graphs_recorded_again(stage, engines, gpu):
    for _ in range(3):
        stage({"image": image()})
    engines.scratch_bytes = 5000
    stage({"image": image(2)})
    engines.scratch_bytes = 100
    for _ in range(3):
        np.testing.assert_array_equal(stage({"image": image()})["y"], 2 * image())
    assert gpu.graphs == [None, 2]
    assert {context.set_device_memory.call_args.args[0] for context in engines.contexts} != set()


def test_what_cannot_be_recorded_yet_runs_all_the_same_and_that_is_told(stage, engines, gpu, caplog):
    caplog.set_level("INFO", "dlf")
    engines.capturable = False
    for seed in range(4):
        np.testing.assert_array_equal(stage({"image": image(seed=seed)})["y"], 2 * image(seed=seed))
    assert gpu.graphs == []
    told = [record.getMessage() for record in caplog.records if "CUDA graph" in record.getMessage()]
    assert told == ["Stage analysis runs without a CUDA graph on 1 images of 1 by 1 tiles."]


def test_kernels_that_were_compiled_are_kept_beside_the_engine(backend, bundle, engines, tmp_path, caplog):
    backend._cache = Cache(ANY_SIZE, folder=tmp_path)
    for n in (1, 1, 2):  # two contexts, which share a cache
        engines.compiled += b"+"
        backend.load(Bundle(bundle), "analysis")({"image": image(n)})
    assert engines.known == [b"kernels+", b"kernels++"]
    (kept,) = tmp_path.glob("a.*")
    assert kept.name == "a.runtime"
    kept.write_bytes(kept.read_bytes()[:-1] + b"-")  # damaged: as if there were none
    backend.load(Bundle(bundle), "analysis")({"image": image()})
    assert len(engines.known) == 2
    caplog.set_level("INFO", "dlf")
    engines.takes_known = False
    backend.load(Bundle(bundle), "analysis")({"image": image()})
    assert "of another driver or GPU; they are compiled again" in caplog.text


def test_graphs_go_with_their_stage(backend, bundle, gpu):
    for _ in range(2):
        stage = backend.load(Bundle(bundle), "analysis")
        for _ in range(3):
            stage({"image": image()})
        del stage
    assert gpu.graphs == [None, None]


def test_the_contexts_used_last_are_kept(stage, engines, tensorrt):
    for w in range(1, tensorrt.KEPT_SHAPES + 2):
        stage({"image": image(w=w)})
        if w > 2:
            stage({"image": image(w=2)})
    made = len(engines.contexts)
    stage({"image": image(w=2)})
    assert len(engines.contexts) == made
    stage({"image": image(w=1)})
    assert len(engines.contexts) == made + 1


def test_the_cache_is_asked_for_what_no_loaded_engine_takes(backend, bundle, engines):
    static = Profile.static(Size(1, 1, 3))
    backend._cache = Cache(Profile.static(Size(1, 1, 1)), static)
    stage = backend.load(Bundle(bundle), "analysis")
    for w in (1, 3, 1):
        stage({"image": image(w=w)})
    ((key, size),) = backend._cache.asked
    assert size == Size(1, 1, 1)
    assert (key.stage, key.library, key.gpu) == ("analysis", "tensorrt_rtx", "sm_89")
    assert key.graph == Bundle(bundle).stage_digest("analysis")
    assert [context.set_optimization_profile_async.call_args.args[0] for context in engines.contexts] == [0, 1]


def test_a_missing_engine_is_built_once(backend, bundle, monkeypatch, caplog):
    cache = backend._cache = Cache()
    commands = []

    def build(command, **_):
        commands.append(command)
        cache.profiles = (ANY_SIZE,)
        return SimpleNamespace(stderr="")

    monkeypatch.setattr("subprocess.run", build)
    stage = backend.load(Bundle(bundle), "analysis")
    for n in (1, 2):
        np.testing.assert_array_equal(stage({"image": image(n)})["y"], 2 * image(n))
    assert commands == [engine_cache.build_command(Bundle(bundle), "sm_89", Size(1, 1, 1), "analysis")]
    assert "There is none. Building stage analysis for 1 images of 1 by 1 tiles" in caplog.text


@pytest.mark.parametrize("stderr", ["Traceback\nModuleNotFoundError: No module named 'polygraphy'", ""])
def test_an_engine_that_cannot_be_built_is_an_error(backend, bundle, monkeypatch, stderr):
    backend._cache = Cache()
    monkeypatch.setattr("subprocess.run", lambda command, **_: SimpleNamespace(stderr=stderr))
    reason = "No module named 'polygraphy'" if stderr else "There is none"
    with pytest.raises(dlf.BackendFailedError, match=rf"dlf\.export\.engine.*gave none: .*{reason}"):
        backend.load(Bundle(bundle), "analysis")({"image": image()})


@pytest.mark.parametrize(
    ("plan", "message"),
    [(b"broken", r"a\.engine cannot be loaded by tensorrt_rtx; delete it"), (b"half", "float16, not float32")],
)
def test_engines_of_no_use_are_refused(backend, bundle, plan, message):
    backend._cache = Cache(ANY_SIZE, plan=plan)
    with pytest.raises(dlf.BackendFailedError, match=message):
        backend.load(Bundle(bundle), "analysis")({"image": image()})


def test_shapes_that_are_no_batch_are_refused(stage):
    with pytest.raises(dlf.InvalidArgumentError, match="image has the shape"):
        stage({"image": np.zeros((1, 3, 256, 200), np.float32)})


@pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address", "execute_async_v3", "set_optimization_profile_async"])
def test_a_refusal_of_tensorrts_is_an_error(backend, bundle, engines, monkeypatch, call):
    make = engines._context

    def refusing(config):
        context = make(config)
        refused = getattr(context, call)
        refused.side_effect, refused.return_value = None, False
        return context

    engines._context = refusing
    with pytest.raises(dlf.BackendFailedError, match="TensorRT could not"):
        backend.load(Bundle(bundle), "analysis")({"image": image()})


def test_tensorrt_itself_is_asked_in_its_own_way(backend, monkeypatch, tensorrt):
    """Without TensorRT-RTX's runtime configuration."""
    monkeypatch.setattr(tensorrt.tensorrt_library, "is_rtx", lambda library: False)
    engine = create_autospec(trt.ICudaEngine, instance=True)
    loaded = tensorrt.LoadedEngine(trt, Engine(Path("a.engine"), None, (), 0, "", {}), engine)
    backend.context(loaded)
    loaded.keep_kernels()  # there are none
    engine.create_execution_context.assert_called_once_with(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    assert backend.is_capturable(None)


def test_the_backend_tells_what_is_in_use(backend):
    assert (backend.name, backend.device) == ("tensorrt", "no GPU at all")
    assert backend.versions == {"tensorrt_rtx": trt.__version__, "cuda driver": "13.1"}


def test_the_codec_gets_its_steps_from_the_backend(backend, bundle):
    steps = backend.steps(Bundle(bundle), lambda step: None)
    assert isinstance(backend, importlib.import_module("dlf.runtime.steps").HasSteps)
    assert isinstance(steps, importlib.import_module("dlf.runtime.gpu.steps").GPUSteps)


# ------------------------------------------------------------------------------------------------------------ the choice


@pytest.mark.parametrize(
    ("there", "no_gpu", "message"),
    [
        ((), None, r"neither TensorRT nor TensorRT-RTX is installed; run: pip install 'dlf\[tensorrt\]'"),
        (("tensorrt_rtx",), "NVIDIA's driver finds no GPU", "NVIDIA's driver finds no GPU; install the driver, or use"),
        (("tensorrt",), "NVIDIA's driver is not installed", "NVIDIA's driver is not installed"),
    ],
)
def test_what_is_missing_is_said(toy_bundle, monkeypatch, there, no_gpu, message):
    monkeypatch.setattr(gpu_choice, "find_spec", lambda name: name in there or None)
    monkeypatch.setattr(driver, "missing", lambda ordinal=0: no_gpu)
    monkeypatch.setattr(driver, "describe", lambda ordinal: None)
    with pytest.raises(dlf.BackendMissingError, match=rf"tensorrt cannot be used: .*{message}"):
        dlf.Codec(toy_bundle, "tensorrt")


@pytest.mark.parametrize(
    ("capability", "extra"),
    [((9, 0), "dlf[tensorrt]"), ((10, 0), "dlf[tensorrt]"), ((8, 9), "dlf[tensorrt-rtx]"), ((12, 0), "dlf[tensorrt-rtx]")],
)
def test_the_extra_for_the_gpu_is_named(monkeypatch, capability, extra):
    monkeypatch.setattr(gpu_choice, "find_spec", lambda name: None)
    monkeypatch.setattr(driver, "describe", lambda ordinal: driver.GPU(capability, "a GPU"))
    assert f"'{extra}'" in choice.missing("tensorrt")


def test_rtx_builds_for_the_gpus_that_it_is_named_for():
    from dlf.runtime.gpu.tensorrt_library import RTX_CAPABILITIES

    members = trt.ComputeCapability.__members__
    assert {f"SM{major}{minor}" for major, minor in RTX_CAPABILITIES} == {name for name in members if name.startswith("SM")}


@pytest.mark.parametrize("library", ["tensorrt", "tensorrt_rtx"])
def test_it_is_chosen_where_there_is_nothing_else(monkeypatch, library):
    monkeypatch.setattr(gpu_choice, "find_spec", lambda name: name == library or None)
    monkeypatch.setattr(driver, "missing", lambda ordinal=0: None)
    monkeypatch.setattr(choice, "find_spec", lambda name: name == "onnxruntime" or None)
    assert choice.installed() == ["onnxruntime", "tensorrt"]
    assert choice.choose(None, ("fp32",))[0] == "onnxruntime"
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    assert choice.choose(None, ("fp32",))[0] == "tensorrt"


def test_a_stream_is_for_the_gpu_alone(toy_bundle):
    pytest.importorskip("onnxruntime")
    with pytest.raises(dlf.InvalidArgumentError, match="runs on the CPU and takes no CUDA stream"):
        dlf.Codec(toy_bundle, "onnxruntime", stream=0)


def test_a_stream_is_handed_on(tensorrt, engines, gpu, monkeypatch):
    monkeypatch.setattr(gpu_choice, "missing", lambda name, ordinal: None)
    backend = choice.open_backend("tensorrt", None, helpers_gpu.GIVEN_STREAM)
    with backend.gpu:
        pass
    assert gpu.waits == [(42, helpers_gpu.GIVEN_STREAM), (helpers_gpu.GIVEN_STREAM, 42)]
