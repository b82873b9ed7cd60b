"""The engine cache: which engine is found, and one test for each reason why one is not used. TensorRT is not needed."""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers.bundle import seal
from hypothesis import given
from hypothesis import strategies as st

from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BundleBrokenError
from dlf.runtime.gpu import engines
from dlf.runtime.gpu.engines import (
    DEFAULT_PROFILES,
    EngineCache,
    EngineKey,
    Profile,
    Size,
    build_command,
    choose_profile,
    engine_key,
    gpu_name,
)

KEY = EngineKey(
    stage="generator",
    graph="0a" * 32,
    precision="fp16",
    library="tensorrt_rtx",
    version="1.7.1",
    gpu="sm_89",
    platform="linux-x86_64",
)
KODAK = Size(1, 2, 3)
STATIC = (Profile.static(KODAK),)
PLAN = bytes(range(256)) * 4


def library(name: str, version: str = "1.7.1") -> ModuleType:
    module = ModuleType(name)
    module.__version__ = version
    return module


@pytest.fixture
def cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> EngineCache:
    caplog.set_level(logging.INFO, "dlf")
    return EngineCache(tmp_path / "engines")


sizes = st.builds(Size, *[st.integers(1, 6)] * 3)
profiles = st.builds(lambda a, b: Profile(Size(*map(min, a, b)), a, Size(*map(max, a, b))), sizes, sizes)


@given(st.lists(profiles, max_size=5), sizes)
def test_chosen_profile_is_the_tightest_that_takes_the_size(candidates: list[Profile], size: Size) -> None:
    def members(profile: Profile) -> set[tuple[int, ...]]:
        return set(product(*(range(low, high + 1) for low, high in zip(profile.min, profile.max, strict=True))))

    taking = [i for i, profile in enumerate(candidates) if tuple(size) in members(profile)]
    chosen = choose_profile(candidates, size)
    assert (chosen is None) == (not taking)
    if chosen is not None:
        assert chosen in taking
        assert np.prod(candidates[chosen].max) == min(np.prod(candidates[i].max) for i in taking)


def test_static_profile_is_preferred() -> None:
    assert choose_profile((*DEFAULT_PROFILES, Profile.static(KODAK)), KODAK) == 2
    assert choose_profile((Profile(Size(1, 1, 1), KODAK, KODAK), Profile.static(KODAK)), KODAK) == 1


def test_default_profiles_are_ranges_and_take_what_they_say() -> None:
    for profile in DEFAULT_PROFILES:
        assert profile.covers(profile.min) and profile.covers(profile.opt) and profile.covers(profile.max)
    for size, taken in ((Size(1, 8, 8), True), (Size(16, 2, 3), True), (Size(1, 9, 1), False), (Size(2, 4, 1), False)):
        assert (choose_profile(DEFAULT_PROFILES, size) is not None) == taken


def test_shape_of_a_size() -> None:
    assert Size(2, 3, 5).shape(["n", 3, "256*h", "256*w"]) == (2, 3, 768, 1280)
    assert Size(2, 3, 5).shape(["n", "h", "w", 12, 32]) == (2, 3, 5, 12, 32)


def test_gpus_name_counts_in_tensorrt_alone() -> None:
    assert gpu_name(library("tensorrt_rtx"), (8, 9), "NVIDIA L4") == "sm_89"
    assert gpu_name(library("tensorrt"), (12, 0), "NVIDIA RTX 5090") == "sm_120 NVIDIA RTX 5090"


def test_key_follows_all_that_an_engine_depends_on(toy_bundle: Path, bundle_copy: Path) -> None:
    rtx = library("tensorrt_rtx")
    key = engine_key(Bundle(toy_bundle), "analysis", rtx, "sm_89")
    assert (key.library, key.version, key.gpu, key.precision) == ("tensorrt_rtx", "1.7.1", "sm_89", "fp32")
    assert engine_key(Bundle(bundle_copy), "analysis", rtx, "sm_89") == key  # wherever the bundle lies
    assert engine_key(Bundle(bundle_copy), "synthesis", rtx, "sm_89").graph != key.graph
    assert engine_key(Bundle(bundle_copy), "analysis", library("tensorrt_rtx", "1.8"), "sm_89") == replace(key, version="1.8")

    weights = bundle_copy / "analysis.onnx.data"
    weights.write_bytes(weights.read_bytes()[::-1])
    seal(bundle_copy)
    other_weights = engine_key(Bundle(bundle_copy), "analysis", rtx, "sm_89")
    assert other_weights == replace(key, graph=other_weights.graph) and other_weights.graph != key.graph


def test_key_needs_no_weights_but_a_whole_graph(bundle_copy: Path) -> None:
    key = engine_key(Bundle(bundle_copy), "analysis", library("tensorrt_rtx"), "sm_89")
    (bundle_copy / "analysis.onnx.data").unlink()
    assert engine_key(Bundle(bundle_copy), "analysis", library("tensorrt_rtx"), "sm_89") == key
    graph = bundle_copy / "analysis.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(BundleBrokenError, match=r"analysis\.onnx has"):
        engine_key(Bundle(bundle_copy), "analysis", library("tensorrt_rtx"), "sm_89")


def test_an_engine_in_tf32_is_another(bundle_copy: Path) -> None:
    assert engine_key(Bundle(bundle_copy), "analysis", library("tensorrt_rtx"), "sm_89").precision == "fp32"
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    manifest["stages"]["analysis"]["tf32"] = True
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    assert engine_key(Bundle(bundle_copy), "analysis", library("tensorrt_rtx"), "sm_89").precision == "tf32"


def test_weights_that_the_manifest_does_not_list_are_refused(bundle_copy: Path) -> None:
    (bundle_copy / "analysis.onnx.data").unlink()
    seal(bundle_copy)
    with pytest.raises(BundleBrokenError, match=r"analysis\.onnx\.data is not listed"):
        Bundle(bundle_copy).stage_digest("analysis")


def test_what_is_put_is_found(cache: EngineCache) -> None:
    kept = cache.put(KEY, (*DEFAULT_PROFILES, *STATIC), memoryview(PLAN), seconds=3.5)
    found = cache.find(KEY, KODAK)
    assert found.engine == kept
    assert (found.plan, found.profile, found.reasons) == (PLAN, 2, ())
    assert cache.find(KEY, Size(1, 7, 1)).profile == 0
    assert cache.get(KEY, (*DEFAULT_PROFILES, *STATIC)) == kept
    assert list(cache.engines()) == [kept]
    assert kept.facts == {"seconds": 3.5}
    assert json.loads(kept.path.with_suffix(".json").read_bytes())["sha256"] == hashlib.sha256(PLAN).hexdigest()


def test_a_file_is_hashed_once_as_long_as_it_stays(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = cache.put(KEY, STATIC, PLAN)
    hashed: list[int] = []
    sha256 = hashlib.sha256

    class Digest:
        def __init__(self, data: bytes = b"") -> None:
            self._digest = sha256(data)

        def update(self, data: memoryview) -> None:
            hashed.append(len(data))
            self._digest.update(data)

        def hexdigest(self) -> str:
            return self._digest.hexdigest()

    monkeypatch.setattr(engines.hashlib, "sha256", Digest)
    for _ in range(3):
        assert cache.find(KEY, KODAK).plan == PLAN
    assert sum(hashed) == len(PLAN)
    kept.path.write_bytes(PLAN)
    os.utime(kept.path, ns=(1, 1))
    assert cache.find(KEY, KODAK).plan == PLAN
    assert sum(hashed) == 2 * len(PLAN)
    kept.path.write_bytes(PLAN[::-1])
    os.utime(kept.path, ns=(2, 2))
    assert cache.find(KEY, KODAK).engine is None


def test_compiled_kernels_are_kept_beside_their_engine(cache: EngineCache) -> None:
    kept = cache.put(KEY, STATIC, PLAN)
    assert engines.read_runtime_cache(kept) is None
    engines.write_runtime_cache(kept, b"kernels")
    assert engines.read_runtime_cache(kept) == b"kernels"
    kept.path.with_suffix(".runtime").write_bytes(b"damaged, and longer than a digest is by far")
    assert engines.read_runtime_cache(kept) is None


def test_kernels_that_cannot_be_kept_are_no_error(cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
    kept = replace(cache.put(KEY, STATIC, PLAN), path=cache.folder / "missing" / "a.engine")
    engines.write_runtime_cache(kept, b"kernels")
    assert "a.runtime cannot be written" in caplog.text


def test_empty_cache_says_so(cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
    found = cache.find(KEY, KODAK)
    assert found.engine is None and found.plan == b""
    assert found.reasons == (f"No engine of stage generator is in {cache.folder}.",)
    assert caplog.messages == list(found.reasons)
    assert cache.get(KEY, STATIC) is None
    assert list(cache.engines()) == []


def damage_last_byte(engine: Path) -> None:
    engine.write_bytes(PLAN[:-1] + b"\0")


def truncate(engine: Path) -> None:
    engine.write_bytes(PLAN[:100])


def lengthen(engine: Path) -> None:
    engine.write_bytes(PLAN + b"\0")


def make_unreadable(engine: Path) -> None:
    engine.unlink()
    engine.mkdir()


def remove_sidecar(engine: Path) -> None:
    engine.with_suffix(".json").unlink()


def garble_sidecar(engine: Path) -> None:
    engine.with_suffix(".json").write_bytes(b"{")


def make_sidecar_unreadable(engine: Path) -> None:
    engine.with_suffix(".json").unlink()
    engine.with_suffix(".json").mkdir()


def edit(**changes: object) -> Callable[[Path], None]:
    def change(engine: Path) -> None:
        sidecar = engine.with_suffix(".json")
        content = {**json.loads(sidecar.read_bytes()), **changes}
        sidecar.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return change


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damage_last_byte, "is not what the SHA-256 in its sidecar says"),
        (edit(sha256="0" * 64), "is not what the SHA-256 in its sidecar says"),
        (truncate, "has 100 bytes, not 1024"),
        (lengthen, "has 1025 bytes, not 1024"),
        (make_unreadable, "cannot be read"),
        (remove_sidecar, "has no sidecar"),
        (garble_sidecar, "has a sidecar that lacks or garbles a field"),
        (make_sidecar_unreadable, "has a sidecar that cannot be read"),
        (edit(bytes=None), "has a sidecar that lacks or garbles a field"),
        (edit(bytes="many"), "has a sidecar that lacks or garbles a field"),
        (edit(key={"stage": "generator"}), "has a sidecar that lacks or garbles a field"),
        (edit(profiles=[[[1, 1], [1, 1], [1, 1]]]), "has a sidecar that lacks or garbles a field"),
        (edit(profiles=[[["a", 1, 1]] * 3]), "has a sidecar that lacks or garbles a field"),
    ],
)
def test_spoilt_engine_is_not_used(
    cache: EngineCache, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None], reason: str
) -> None:
    engine = cache.put(KEY, STATIC, PLAN)
    spoil(engine.path)
    found = cache.find(KEY, KODAK)
    assert found.engine is None and found.plan == b""
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith(f"{engine.path.name} is not used: it {reason}")
    assert caplog.messages == list(found.reasons)
    caplog.clear()
    assert cache.get(KEY, STATIC) is None
    assert f"is not used: it {reason}" in caplog.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("graph", "0b" * 32),
        ("precision", "fp32"),
        ("library", "tensorrt"),
        ("version", "1.7.2"),
        ("gpu", "sm_120"),
        ("platform", "linux-aarch64"),
        ("build", KEY.build + 1),
    ],
)
def test_engine_of_another_key_is_not_used(
    cache: EngineCache, caplog: pytest.LogCaptureFixture, field: str, value: str | int
) -> None:
    engine = cache.put(KEY, STATIC, PLAN)
    found = cache.find(replace(KEY, **{field: value}), KODAK)
    assert found.engine is None
    expected = f"{engine.path.name} is not used: it was built for {field} {getattr(KEY, field)}, not {value}."
    assert caplog.messages == list(found.reasons) == [expected]


def test_engine_of_another_stage_is_not_looked_at(cache: EngineCache) -> None:
    cache.put(KEY, STATIC, PLAN)
    assert cache.find(replace(KEY, stage="analysis"), KODAK).reasons == (f"No engine of stage analysis is in {cache.folder}.",)


def test_engine_of_other_sizes_is_not_used(cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
    engine = cache.put(KEY, STATIC, PLAN)
    found = cache.find(KEY, Size(2, 2, 3))
    assert found.engine is None
    expected = f"{engine.path.name} is not used: it was built for other sizes than 2 images of 2 by 3 tiles."
    assert caplog.messages == list(found.reasons) == [expected]


def test_tighter_engine_wins_and_the_next_best_replaces_a_damaged_one(
    cache: EngineCache, caplog: pytest.LogCaptureFixture
) -> None:
    wide = cache.put(KEY, DEFAULT_PROFILES, b"wide")
    tight = cache.put(KEY, STATIC, PLAN)
    found = cache.find(KEY, KODAK)
    assert (found.engine, found.plan) == (tight, PLAN)
    assert found.reasons == (f"{wide.path.name} is not used: {tight.path.name} serves this size as well or better.",)
    damage_last_byte(tight.path)
    found = cache.find(KEY, KODAK)
    assert (found.engine, found.plan, found.profile) == (wide, b"wide", 0)
    assert found.reasons == (f"{tight.path.name} is not used: it is not what the SHA-256 in its sidecar says.",)
    assert found.reasons[0] in caplog.messages


def test_build_that_is_cut_short_leaves_no_engine(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not the older one's sidecar beside the newer one's bytes."""
    cache.put(KEY, STATIC, b"older")
    write = engines.write_atomically

    def interrupt(path: Path, data: bytes | memoryview) -> None:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(engines, "write_atomically", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.put(KEY, STATIC, PLAN)
    found = cache.find(KEY, KODAK)
    assert found.engine is None
    assert "has no sidecar" in found.reasons[0]


def test_stage_name_cannot_leave_the_folder(cache: EngineCache) -> None:
    key = replace(KEY, stage="../../[x]")
    engine = cache.put(key, STATIC, PLAN)
    assert engine.path.parent == cache.folder
    assert cache.find(key, KODAK).engine == engine


def test_folder_is_the_users_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = EngineCache()
    assert cache.folder == tmp_path / "dlf" / "engines"
    assert not cache.folder.exists()
    cache.put(KEY, STATIC, PLAN)
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert EngineCache().folder == tmp_path / "home" / ".cache" / "dlf" / "engines"


# A process that takes the lock of the engine, and then says so and waits.
RIVAL = """
import logging, sys
from pathlib import Path
from dlf.runtime.gpu.engines import EngineCache, EngineKey, Profile, Size
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
with EngineCache(Path(sys.argv[1])).lock(EngineKey(*sys.argv[2:]), [Profile.static(Size(1, 2, 3))]):
    print("holds the lock", flush=True)
    sys.stdin.read()
"""


def start_rival(cache: EngineCache) -> subprocess.Popen:
    fields = [KEY.stage, KEY.graph, KEY.precision, KEY.library, KEY.version, KEY.gpu, KEY.platform]
    arguments = [sys.executable, "-c", RIVAL, str(cache.folder), *fields]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_second_builder_waits_for_the_first(cache: EngineCache) -> None:
    with cache.lock(KEY, STATIC):
        rival = start_rival(cache)
        assert rival.stdout.readline() == "Another process builds this engine of stage generator; waiting for it.\n"
    with rival:
        assert rival.stdout.readline() == "holds the lock\n"
        rival.communicate()


def test_lock_of_a_process_that_died_is_free(cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
    with start_rival(cache) as rival:
        assert rival.stdout.readline() == "holds the lock\n"
        rival.send_signal(signal.SIGKILL)
        rival.communicate()
    with cache.lock(KEY, STATIC):
        assert not caplog.messages  # it did not have to wait


def test_command_names_what_is_to_be_built(toy_bundle: Path) -> None:
    bundle = Bundle(toy_bundle)
    command = build_command(bundle, "sm_89")
    assert command == [sys.executable, "-m", "dlf.export.engine", str(toy_bundle), "--gpu", "sm_89"]
    assert build_command(bundle, "sm_89", KODAK) == command  # the default profiles take it
    assert build_command(bundle, "sm_89", Size(2, 9, 12)) == [*command, "--size", "3072x2304x2"]
    assert build_command(bundle, "sm_89", stage="generator") == [*command, "--stage", "generator"]
