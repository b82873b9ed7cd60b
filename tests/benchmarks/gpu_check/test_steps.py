"""The steps over a simulated GPU (`helpers.gpu`), whose kernels are the references: they pass, and fail if a kernel is wrong."""

import numpy as np
import pytest
import torch
from helpers import gpu as helpers_gpu
from helpers.doctor import add_references
from helpers.entropy import random_tables
from helpers.export import TINY
from helpers.onnxruntime_on_gpu import OnHost, describe_ports, install_with_providers

from dlf.benchmarks.gpu_check import codec, engines, graphs, kernels, machine, speed
from dlf.benchmarks.gpu_check.findings import Findings, SkippedError
from dlf.benchmarks.gpu_check.torch_stages import TorchStages, random_model
from dlf.runtime.backends import gpu_choice, onnxruntime_cuda

SHAPE = (2, 8, 16)


@pytest.fixture
def tables():
    return random_tables(np.random.default_rng(0), 8, entries=40, dim=12)


@pytest.fixture
def fake(tables):
    return helpers_gpu.FakeGPU(tables)


@pytest.fixture
def gpu(fake, monkeypatch):
    return helpers_gpu.install(monkeypatch, fake).Device()


def facts(findings: Findings) -> list[str]:
    return [f"{check.name}: {check.fact}" for check in findings.checks if not check.passed]


def test_the_machine_is_told(gpu):
    findings = Findings()
    machine.check(findings, gpu)
    assert facts(findings) == []
    assert len(findings.checks) == 6  # the GPU, the kernels without a width, and those of four
    assert findings.figures["capability"] == "8.9"


def check_kernels(gpu, tables) -> Findings:
    findings = Findings()
    kernels.check_maps(findings, gpu, tables, SHAPE)
    kernels.check_lookup(findings, gpu, tables, 3)
    kernels.check_pictures(findings, gpu, 3, 300)
    findings.attempt("ties", lambda: kernels.crop_ties(gpu))
    findings.attempt("finite", lambda: kernels.finite(gpu))
    return findings


def test_kernels_that_are_right_pass(gpu, tables):
    findings = check_kernels(gpu, tables)
    assert facts(findings) == []
    assert len(findings.checks) == 3 + 1 + 4 + 4 + 1 + 2 + 2


@pytest.mark.parametrize(
    ("kernel", "array", "failing"),
    [
        ("prior_end", "indexes", 3),
        ("prior_end", "means", 3),
        ("first_params", "means", 1),
        ("quantise", "r", 1),
        ("quantise", "symbols", 1),
        ("select", "coded", 1),
        ("update", "y_hat", 4),
        ("vq_lookup", "tokens", 1),
        ("pad_pixels", "image", 1),
        ("crop_pixels", "pixels", 2),
        ("check_finite", "flag", 1),
    ],
)
def test_a_kernel_that_is_wrong_in_one_value_fails(gpu, fake, tables, monkeypatch, kernel, array, failing):
    right = getattr(fake, f"_{kernel}")

    def wrong(of):
        right(of)
        at = getattr(of, array)
        helpers_gpu.at(at, (1,), np.uint8)[:] ^= 1

    monkeypatch.setattr(fake, f"_{kernel}", wrong)
    # Of the symbols of four steps, the first value is the first step's.
    assert len(facts(check_kernels(gpu, tables))) == failing


def test_the_whole_set_of_kernels_is_small_where_it_is_asked_for(gpu, fake, monkeypatch):
    seen = []
    monkeypatch.setattr(kernels, "check_maps", lambda findings, gpu, tables, shape: seen.append((len(tables.q), shape)))
    findings = Findings()
    kernels.check_all(findings, gpu, small=True)
    assert seen == [(16, (1, 8, 8))]
    assert facts(findings) == []
    kernels.check_all(findings, gpu)
    assert {channels for channels, _ in seen} == set(kernels.CHANNELS)


def test_graphs_are_recorded_and_replayed(gpu, fake, tables):
    findings = Findings()
    graphs.check(findings, gpu, tables)
    assert facts(findings) == []
    assert len(findings.checks) == len(graphs.SIZES)
    assert max(launched or 0 for launched in fake.graphs) >= 2


def test_a_graph_that_replays_something_else_fails(gpu, fake, tables, monkeypatch):
    right, turns = fake.cuGraphLaunch, []

    def wrong(executable, stream):
        turns.append(executable)
        if len(turns) != 8:
            right(executable, stream)

    monkeypatch.setattr(fake, "cuGraphLaunch", wrong)
    findings = Findings()
    graphs.check(findings, gpu, tables)
    assert facts(findings)


def test_the_codec_with_stages_in_torch(monkeypatch):
    """On the simulated GPU, torch computes on the host."""
    here = TorchStages.of(random_model(TINY))
    gpu = helpers_gpu.install(monkeypatch, helpers_gpu.FakeGPU(here.tables)).Device()
    monkeypatch.setattr(codec, "BATCHES", codec.BATCHES[1:3])
    findings = Findings()
    codec.check(findings, here, TorchStages.of(random_model(TINY), gpu))
    assert facts(findings) == []
    assert len(findings.checks) == 4


def test_a_codec_whose_pictures_differ_fails(monkeypatch):
    here = TorchStages.of(random_model(TINY))
    fake = helpers_gpu.FakeGPU(here.tables)
    gpu = helpers_gpu.install(monkeypatch, fake).Device()
    monkeypatch.setattr(fake, "_crop_pixels", lambda of: helpers_gpu.at(of.pixels, (of.height, of.width, 3), np.uint8).fill(0))
    monkeypatch.setattr(codec, "BATCHES", codec.BATCHES[1:2])
    findings = Findings()
    codec.check(findings, here, TorchStages.of(random_model(TINY), gpu))
    assert any("pictures differ by" in fact for fact in facts(findings))


def test_backends_are_examined_and_timed(bundle_copy, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = describe_ports(add_references(bundle_copy))
    install_with_providers(monkeypatch, bundle)
    monkeypatch.setattr(onnxruntime_cuda, "ONNXRuntimeCUDABackend", OnHost)
    monkeypatch.setattr(gpu_choice, "ON_GPU", ("onnxruntime",))
    monkeypatch.setattr(engines, "REPEATS", 1)
    findings = Findings()
    engines.check(findings, bundle)
    assert facts(findings) == []
    assert set(findings.figures["onnxruntime"]) == {"encode_ms", "decode_ms"}
    monkeypatch.setattr(gpu_choice, "missing", lambda name: "it is not there")
    with pytest.raises(SkippedError, match="onnxruntime: it is not there"):
        engines.check(findings, bundle)


def test_the_stages_are_timed(monkeypatch):
    monkeypatch.setattr(speed, "DOWN", 1)
    monkeypatch.setattr(speed, "ACROSS", 1)
    findings = Findings()
    speed.measure(findings, TINY, "cpu", speed.by_clock, ("fp32", "tf32"))
    assert facts(findings) == []
    assert {way: list(stages) for way, stages in findings.figures["ms"].items()} == {
        way: ["analysis", "synthesis", "adaptor", "generator"] for way in ("fp32", "tf32")
    }
    assert findings.figures["floor_ms"] == {}  # no maker's sheet for this CPU


@pytest.mark.parametrize(
    ("card", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80 GB"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA L40S", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA GeForce RTX 3060", None),
        ("cpu", None),
    ],
)
def test_a_card_is_found_by_its_name(card, known):
    rates = speed.card_rates(card)
    assert (rates and rates["name"]) == known


def test_the_floor_is_that_of_the_products(monkeypatch):
    rates = {"tera_ops": {"fp32": 2.0}, "gigabytes_per_second": 4.0}
    monkeypatch.setattr(speed, "card_rates", lambda card: rates)

    class Linear:
        weight = torch.zeros(300, 200)

        def stage(self, x):
            return x @ self.weight.T

    inputs = (torch.zeros(100, 200),)
    assert speed.floor(Linear(), "stage", inputs, "a card", "fp32") == pytest.approx(1000 * 100 * 200 * 4 / 4e9)
    rates["gigabytes_per_second"] = 1e9
    assert speed.floor(Linear(), "stage", inputs, "a card", "fp32") == pytest.approx(1000 * 2 * 100 * 200 * 300 / 2e12)
    assert speed.floor(Linear(), "stage", inputs, "a card", "fp16") is None
