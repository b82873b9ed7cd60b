"""`dlf doctor` as a whole: its report and its exit codes."""

import json
import re

import pytest
from helpers.onnxruntime_on_gpu import OnHost, describe_ports, install_with_providers
from typer.testing import CliRunner, Result

import dlf
from dlf.runtime import doctor as doctor_module
from dlf.runtime.backends import choice, onnxruntime_cuda
from dlf.runtime.bundles import builtin
from dlf.runtime.cli import app
from dlf.runtime.doctor import examine
from dlf.runtime.gpu.engines import EngineCache, EngineKey, Profile, Size

KEY = EngineKey("generator", "ab" * 32, "fp16", "tensorrt_rtx", "1.2.3", "sm_89", "linux-x86_64")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> EngineCache:
    """An engine cache of our own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return EngineCache()


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def test_healthy_installation_passes(referenced, backend):
    result = doctor("--model", str(referenced), "--backend", backend, "--threads", "1", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["passed"] is True
    assert found["dlf"] == dlf.__version__
    assert (found["model"]["name"], found["model"]["path"]) == ("toy", str(referenced))
    assert (found["backend"]["name"], found["backend"]["reason"]) == (backend, "asked for")
    assert all(check["passed"] for check in found["checks"])
    assert len(found["checks"]) == 7


def test_a_gpu_that_passes_is_the_default_from_then_on(referenced, monkeypatch):
    install_with_providers(monkeypatch, describe_ports(referenced))
    monkeypatch.setattr(onnxruntime_cuda, "ONNXRuntimeCUDABackend", OnHost)
    assert dlf.Codec(referenced).backend.device != "no GPU at all"
    result = doctor("--model", str(referenced), "--backend", "onnxruntime", "--device", "cuda", "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["checks"]) == 9  # with the steps between the stages
    codec = dlf.Codec(referenced)
    assert (codec.backend.name, codec.backend.device) == ("onnxruntime", "no GPU at all")
    assert dlf.Codec(referenced, device="cpu").backend.device != "no GPU at all"
    # One that fails no longer is.
    monkeypatch.setattr(OnHost, "run", lambda self, session, inputs, outputs: None)
    assert doctor("--model", str(referenced), "--backend", "onnxruntime", "--device", "cuda").exit_code == 1
    assert dlf.Codec(referenced).backend.device != "no GPU at all"


def test_report_for_people_says_the_same(referenced):
    result = doctor("--model", str(referenced))
    assert result.exit_code == 0
    assert "All 7 checks passed." in result.stdout
    assert re.search(r"licence +unknown", result.stdout)
    for stage in ("analysis", "synthesis", "adaptor", "generator"):
        assert f"pass  stage: {stage}" in result.stdout


def test_tells_the_licence_of_the_builtin_model():
    assert examine().model["license"] == builtin.license()


def test_bundle_without_references_exits_with_1(toy_bundle):
    result = doctor("--model", str(toy_bundle))
    assert result.exit_code == 1
    assert "FAIL  reference outputs" in result.stdout
    assert "no reference outputs in this bundle" in " ".join(result.stdout.split())


def test_wrong_backend_exits_with_1(referenced, monkeypatch):
    pytest.importorskip("openvino")
    from dlf.runtime.backends.openvino import OpenVINOBackend

    load = OpenVINOBackend.load
    halved = lambda self, *stage: lambda inputs: {k: v / 2 for k, v in load(self, *stage)(inputs).items()}  # noqa: E731
    monkeypatch.setattr(OpenVINOBackend, "load", halved)
    result = doctor("--model", str(referenced), "--backend", "openvino")
    assert result.exit_code == 1
    assert result.stdout.count("FAIL") == 4
    assert "4 of 7 checks failed" in result.stdout


def test_choice_is_explained(referenced):
    found = examine(referenced).backend
    assert found["name"] == choice.installed()[0]
    assert re.fullmatch(r"the fastest of .* on a processor with(out)? int8 dot products", found["reason"])


def test_backends_that_cannot_be_used_are_told_with_the_remedy(referenced, monkeypatch):
    monkeypatch.setattr(choice, "missing", lambda name: None if name == "onnxruntime" else f"{name} is not there; buy it")
    monkeypatch.setattr(doctor_module, "missing", choice.missing)
    report = examine(referenced)
    assert report.backends == {name: choice.missing(name) for name in choice.INSTALL}
    assert report.backend["name"] == "onnxruntime"
    shown = " ".join(doctor("--model", str(referenced)).stdout.split())
    assert "openvino cannot be used: openvino is not there; buy it" in shown


def test_missing_backend_is_a_failure_and_the_entropy_core_is_tested_still(referenced, monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    report = examine(referenced)
    assert not report.passed
    assert report.backend is None
    assert [(check.name, check.passed) for check in report.checks] == [
        ("backend", False),
        ("entropy core: round trip", True),
        ("entropy core: scalar code", True),
        ("entropy core: stored file", True),
    ]
    assert "pip install 'dlf[cpu]'" in report.checks[0].fact


def test_broken_bundle_is_a_failure(referenced):
    (referenced / "entropy.bin").write_bytes(b"x")
    report = examine(referenced)
    assert [(check.name, check.passed) for check in report.checks] == [("bundle", False)]
    assert report.isa is None


def test_what_is_no_bundle_is_a_failure(tmp_path):
    result = doctor("--model", str(tmp_path))
    assert result.exit_code == 1
    assert "FAIL  bundle" in result.stdout


def test_cached_engines_are_listed(referenced, cache):
    assert examine(referenced).engines == []
    engine = cache.put(KEY, [Profile.static(Size(1, 1, 1))], b"plan")
    report = examine(referenced)
    assert report.engine_folder == str(cache.folder)
    assert report.engines == [
        {
            "stage": "generator",
            "precision": "fp16",
            "library": "tensorrt_rtx",
            "version": "1.2.3",
            "gpu": "sm_89",
            "bytes": 4,
            "path": str(engine.path),
        }
    ]
    assert "generator, fp16, tensorrt_rtx 1.2.3, sm_89" in doctor("--model", str(referenced)).stdout


@pytest.mark.parametrize("arguments", [("--backend", "tensorflow"), ("--threads", "0")])
def test_wrong_usage_exits_with_2(arguments):
    assert doctor(*arguments).exit_code == 2
