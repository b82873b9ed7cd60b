"""Lower bounds, compared with arithmetic by hand; the command."""

import itertools
import json
from pathlib import Path
from urllib.parse import urlparse

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from dlf.benchmarks import peak, roofline
from dlf.benchmarks.graph_cost import Cost
from dlf.benchmarks.roofline import Device, Floor, floors

DEVICE = Device("slow", {"fp32": 1000.0, "int8": 4000.0}, 100.0, "made up")
COSTS = {
    "analysis": Cost(6000, 10, 15),  # fp32: 6 s of compute, 1 s of memory; int8: 1.5 s, 0.25 s
    "synthesis": Cost(1000, 100, 20),  # 1 s, 4.8 s; 0.25 s, 1.2 s
    "adaptor": Cost(500, 25, 0),  # 0.5 s, 1 s; 0.125 s, 0.25 s
    "generator": Cost(2000, 0, 25),  # 2 s, 1 s; 0.5 s, 0.25 s
}


def test_floor_is_the_longer_of_compute_and_memory():
    found = {(floor.precision, floor.stage): (floor.seconds, floor.bound) for floor in floors(COSTS, [DEVICE])}
    assert found == {
        ("fp32", "analysis"): (6, "compute"),
        ("fp32", "synthesis"): (pytest.approx(4.8), "memory"),
        ("fp32", "adaptor"): (1, "memory"),
        ("fp32", "generator"): (2, "compute"),
        ("fp32", "encode"): (6, "compute"),
        ("fp32", "decode"): (pytest.approx(7.8), "memory"),
        ("int8", "analysis"): (1.5, "compute"),
        ("int8", "synthesis"): (pytest.approx(1.2), "memory"),
        ("int8", "adaptor"): (0.25, "memory"),
        ("int8", "generator"): (0.5, "compute"),
        ("int8", "encode"): (1.5, "compute"),
        ("int8", "decode"): (pytest.approx(1.95), "memory"),
    }


def test_gpus_are_those_that_were_asked_for_with_their_sources():
    found = roofline.gpus()
    assert [device.name.split()[0] for device in found] == ["A100", "H100", "L4", "RTX", "Jetson"]
    for device in found:
        assert urlparse(device.source).hostname.endswith("nvidia.com")
        assert set(device.rates) <= set(roofline.WIDTHS)
        # each step down in precision is no slower, and a rate in FLOP/s, not in TFLOP/s
        assert all(a <= b for a, b in itertools.pairwise(device.rates.values()))
        assert 1e12 < device.rates["fp32"] < 1e14
        assert 1e11 < device.bandwidth < 1e13


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_gemm_rate_is_operations_over_the_shortest_time(monkeypatch, precision):
    monkeypatch.setattr(peak, "_SIDE", 64)
    clock = itertools.accumulate(itertools.cycle([1.0, 0.5, 1.0, 0.25]))
    monkeypatch.setattr(peak, "perf_counter", lambda: next(clock))
    assert peak.gemm_rate(precision, 1) == 2 * 64**3 / 0.25


def test_bandwidth_is_bytes_over_the_shortest_time(monkeypatch):
    monkeypatch.setattr(peak, "_READ_BYTES", 4096)
    clock = itertools.accumulate(itertools.cycle([1.0, 0.5, 1.0, 0.25]))
    monkeypatch.setattr(peak, "perf_counter", lambda: next(clock))
    assert peak.read_bandwidth(1) == 4096 / 0.25


@pytest.fixture
def bundle(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The toy bundle's folder; the CPU's rates and the costs are fixed."""
    monkeypatch.setattr(roofline, "this_cpu", lambda threads: Device("this CPU", {"fp32": 1e9}, 1e9, "made up"))
    monkeypatch.setattr(roofline, "count_stages", lambda bundle, width, height: COSTS)
    return str(toy_bundle)


def command(*arguments: str) -> Result:
    app = Typer(pretty_exceptions_enable=False)
    app.command()(roofline.main)
    return CliRunner().invoke(app, arguments)


def test_json_holds_everything(bundle):
    result = command(bundle, "--json", "--size", "300x200")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert "not measurements" in found["note"]
    assert found["stages"]["analysis"] == {"flops": 6000, "weights": 10, "activations": 15}
    assert found["devices"][-1]["name"] == "this CPU"
    assert found["title"].endswith(", 300x200")
    floor = Floor(**next(floor for floor in found["floors"] if (floor["device"], floor["stage"]) == ("this CPU", "analysis")))
    assert floor.seconds == pytest.approx(6e-6)


def test_table_names_what_it_is(bundle):
    result = command(bundle)
    assert result.exit_code == 0
    assert "not measurements" in result.stdout
    for name in ("A100", "H100", "L4", "RTX 4090", "Jetson", "this CPU", "generator", "decode"):
        assert name in result.stdout


def test_plot_is_drawn(bundle, tmp_path):
    assert command(bundle, "--plot", str(tmp_path / "roofline.svg")).exit_code == 0
    svg = (tmp_path / "roofline.svg").read_text()
    assert svg.startswith("<?xml")
    assert "not measurements" in svg


def test_stages_are_counted_for_whole_tiles(tiny_bundle):
    from dlf.runtime.bundles.bundle import Bundle

    small, whole = (roofline.count_stages(Bundle(tiny_bundle), *size) for size in ((257, 100), (512, 256)))
    assert small == whole
    assert list(small) == ["analysis", "synthesis", "adaptor", "generator"]


@pytest.mark.parametrize("size", ["768", "0x5", "768x512x1"])
def test_wrong_size_is_refused(bundle, size):
    assert command(bundle, "--size", size).exit_code == 2


def test_what_is_no_bundle_is_refused(tmp_path):
    result = command(str(tmp_path))
    assert result.exit_code == 1
    assert "is not a bundle" in result.stderr
