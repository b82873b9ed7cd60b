"""Jobs on a Ray cluster of three nodes, of which parts end in the middle. Each wait has a bound."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.corpus import KILLER, make_job, make_pictures, rows, tree
from PIL import Image

import dlf
from dlf.runtime.corpus.report import Report

TESTS = Path(__file__).parents[2]
# Ray's own: it notices a lost node at once, and not after half a minute.
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}

ray = pytest.importorskip("ray")
from dlf.runtime.cluster import connected  # noqa: E402
from dlf.runtime.corpus import engine  # noqa: E402

pytestmark = pytest.mark.slow  # a cluster takes some 10 s to start


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A head without CPUs, and two nodes of two."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(TESTS))  # of the workers
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": QUICK})
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "photos", 60)


def expected(photos: Path, bundle: Path) -> dict[str, bytes]:
    """What one process makes of the photographs."""
    codec = dlf.Codec(bundle, "openvino", 1)
    return {f"{path}.dlf": codec.encode(photos / path) for path in tree(photos)}


def once(event: Callable[[], None]) -> Callable[[Report], None]:
    """Do something when a job has done its first images; what a job tells its reports to."""
    pending = [event]

    def tell(report: Report) -> None:
        if pending and report.seen:
            pending.pop()()

    return tell


def workers() -> list[int]:
    """The processes of workers on this machine that are in their work."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"ray::Worker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def check(report: Report, photos: Path, coded: Path, bundle: Path) -> None:
    """Each image is there once, with the bytes of one process."""
    assert (report.done + report.skipped, report.failed) == (60, 0), report.errors
    assert tree(coded, ".dlf") == expected(photos, bundle)
    assert sorted(row.path for row in rows(coded)) == sorted(tree(photos))


def test_a_node_ends(cluster, photos, tmp_path, toy_bundle):
    nodes = list(cluster.worker_nodes)
    job = make_job("encode", photos, tmp_path / "coded", toy_bundle, delay=0.1, shard=4)
    with connected(cluster.address, 1):
        report = engine.run(job, tell=once(lambda: cluster.remove_node(nodes[0], allow_graceful=False)))
    assert report.workers == 4 and report.workers_lost == 2
    check(report, photos, tmp_path / "coded", toy_bundle)


def test_a_worker_ends(cluster, photos, tmp_path, toy_bundle):
    job = make_job("encode", photos, tmp_path / "coded", toy_bundle, delay=0.1, shard=4)
    with connected(cluster.address, 1):
        report = engine.run(job, tell=once(lambda: os.kill(workers()[0], signal.SIGKILL)))
    assert report.workers_lost == 1
    check(report, photos, tmp_path / "coded", toy_bundle)


def test_an_image_ends_its_worker(cluster, photos, tmp_path, toy_bundle):
    Image.new("RGB", (20, KILLER)).save(photos / "killer.png")
    Image.new("RGB", (30, KILLER)).save(photos / "killer2.png")
    job = make_job("encode", photos, tmp_path / "coded", toy_bundle, shard=8)
    with connected(cluster.address, 1):
        report = engine.run(job, 2)
    assert report.done == 60
    assert set(report.errors) == {"killer.png", "killer2.png"}
    assert 2 <= report.workers_lost <= 6


DRIVER = """
import sys
from pathlib import Path
from helpers.corpus import make_job
from dlf.runtime.cluster import connected
from dlf.runtime.corpus import engine
address, photos, coded, bundle = sys.argv[1:]
job = make_job("encode", photos, coded, Path(bundle), delay=0.1, shard=4)
with connected(address, 1):
    engine.run(job)
"""


def test_the_driver_ends_and_is_started_again(cluster, photos, tmp_path, toy_bundle):
    coded = tmp_path / "coded"
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, cluster.address, str(photos), str(coded), str(toy_bundle)], env=os.environ
    )
    try:
        deadline = time.monotonic() + 60
        while len(list(coded.rglob("*.parquet"))) < 4:
            assert driver.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        driver.kill()
        driver.wait()
    before = {path: path.read_bytes() for path in coded.rglob("*.parquet")}
    job = make_job("encode", photos, coded, toy_bundle, delay=0.1, shard=4)
    with connected(cluster.address, 1):
        report = engine.run(job)
    assert 16 <= report.skipped < 60
    assert {path: path.read_bytes() for path in before} == before
    check(report, photos, coded, toy_bundle)


def test_more_workers_than_there_is_room_for(cluster, photos, tmp_path, toy_bundle):
    with connected(cluster.address, 1):
        report = engine.run(make_job("encode", photos, tmp_path / "coded", toy_bundle, shard=4), 20)
    check(report, photos, tmp_path / "coded", toy_bundle)


def test_a_model_that_cannot_be_opened_ends_the_job(cluster, photos, tmp_path):
    with connected(cluster.address, 1), pytest.raises(dlf.BundleForeignError, match="nothing"):
        engine.run(make_job("encode", photos, tmp_path / "coded", tmp_path / "nothing"))


def test_a_target_that_cannot_be_written_is_an_error_of_each_image(cluster, photos, tmp_path, toy_bundle):
    coded = tmp_path / "coded"
    for path in tree(photos):
        (coded / f"{path}.dlf").mkdir(parents=True)  # where a file is to be
    with connected(cluster.address, 1):
        report = engine.run(make_job("encode", photos, coded, toy_bundle))
    assert report.failed == 60 and "IsADirectoryError" in report.errors["0000.png"]


def test_no_cluster_at_the_address():
    with pytest.raises(dlf.BackendFailedError, match=r"127\.0\.0\.1:1"), connected("127.0.0.1:1", 1):
        pass
