"""Memory: images that would not fit are refused before a stage runs; the machine's and the control groups' limits are found."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bundle import seal
from helpers.native import Backend, Context, Model, logged, openvino_library
from typer.testing import CliRunner

import dlf
from dlf.runtime import libdlf
from dlf.runtime.cli import app
from dlf.runtime.coder import Coder

MIB = 1 << 20
FIXED, PER_PIXEL = 100 * MIB, 200.0  # of decoding; encoding takes half
IMAGE = np.zeros((300, 500, 3), np.uint8)  # of 2 by 2 tiles
NEEDED = FIXED + int(PER_PIXEL) * 4 * 256 * 256


def needs(share: float) -> dict[str, float]:
    return {"bytes": FIXED * share, "bytes_per_pixel": PER_PIXEL * share}


@pytest.fixture
def measured(bundle_copy: Path) -> Path:
    """The toy bundle with made-up measurements."""
    seal(bundle_copy, memory={name: {"encode": needs(0.5), "decode": needs(1)} for name in ("openvino", "onnxruntime", "own")})
    return bundle_copy


def fail_if_run(*_: Any) -> None:
    raise AssertionError("a stage was run")


def test_decoding_what_does_not_fit_is_refused_before_a_stage_runs(measured: Path, backend: str, monkeypatch: Any) -> None:
    data = dlf.Codec(measured, backend, memory_limit=NEEDED).encode(IMAGE)
    with dlf.Codec(measured, backend, memory_limit=NEEDED) as enough:
        assert enough.decode(data).shape == IMAGE.shape
    short = dlf.Codec(measured, backend, memory_limit=NEEDED - MIB)
    monkeypatch.setattr(Coder, "_run", fail_if_run)
    with pytest.raises(dlf.OutOfMemoryError, match=rf"500x300 pixels take about 150 MiB to decode on {backend}.*256x256 fit"):
        short.decode(data)


def test_encoding_has_measurements_of_its_own_and_counts_the_batch(measured: Path, backend: str, monkeypatch: Any) -> None:
    with dlf.Codec(measured, backend, memory_limit=NEEDED // 2) as codec:
        codec.encode_many([IMAGE] * 3, batch=1)
        monkeypatch.setattr(Coder, "_run", fail_if_run)
        with pytest.raises(dlf.OutOfMemoryError, match="2 images at a time of 500x300"):
            codec.encode_many([IMAGE] * 2)


def test_large_images_have_a_line_of_their_own(bundle_copy: Path, backend: str) -> None:
    line = {**needs(1), "large": {"bytes": FIXED, "bytes_per_pixel": PER_PIXEL / 2}}
    seal(bundle_copy, memory={backend: {"encode": line, "decode": line}})
    bundle = dlf.Codec(bundle_copy, backend).bundle
    large = FIXED + int(PER_PIXEL) // 2 * 16 * 256 * 256
    bundle.check_memory(backend, "decode", 1024, 1024, 1, large)
    with pytest.raises(dlf.OutOfMemoryError, match=r"1024x1024 pixels take about 200 MiB to decode.*up to about 512x512 fit"):
        bundle.check_memory(backend, "decode", 1024, 1024, 1, large - MIB)
    with pytest.raises(dlf.OutOfMemoryError, match=r"16 images at a time of 256x256.*up to about 7 fit.*fewer at a time"):
        bundle.check_memory(backend, "decode", 256, 256, 16, large - MIB)
    with pytest.raises(dlf.OutOfMemoryError, match="1024x768 pixels take about 250 MiB to decode"):
        bundle.check_memory(backend, "decode", 768, 1024, 1, large + MIB)


@pytest.fixture
def also_released(bundle_copy: Path, backend: str) -> Path:
    """The toy bundle with made-up measurements, by which released stages take half."""
    line = {**needs(1), "released": needs(0.5), "large": needs(0.5)}
    seal(bundle_copy, memory={backend: {"encode": line, "decode": line}})
    return bundle_copy


def test_stages_are_released_where_images_fit_in_no_other_way(also_released: Path, backend: str) -> None:
    with dlf.Codec(also_released, backend, memory_limit=NEEDED) as codec:
        data = codec.encode(IMAGE)
        (coder,) = codec._coders.values()
        assert coder.stages
        coder._memory_limit = NEEDED - MIB
        assert codec.decode(data).shape == IMAGE.shape
        assert not coder.stages  # not even those that were there
    with (
        dlf.Codec(also_released, backend, memory_limit=NEEDED // 2 - MIB) as codec,
        pytest.raises(dlf.OutOfMemoryError, match=r"500x300 pixels take about 75 MiB.* 256x256 fit"),
    ):
        codec.decode(data)


def test_stages_that_are_released_anyway_need_less(also_released: Path, backend: str) -> None:
    bundle = dlf.Codec(also_released, backend).bundle
    least = NEEDED // 2 + MIB
    assert bundle.check_memory(backend, "decode", 300, 500, 1, least)
    assert bundle.check_memory(backend, "decode", 300, 500, 1, NEEDED, low_memory=True)
    assert not bundle.check_memory(backend, "decode", 300, 500, 1, NEEDED)
    with pytest.raises(dlf.OutOfMemoryError, match="up to about 512x512 fit"):
        bundle.check_memory(backend, "decode", 2560, 2560, 1, least)


def test_where_no_tile_fits_the_message_says_so(measured: Path, backend: str) -> None:
    with dlf.Codec(measured, backend, memory_limit=MIB) as codec, pytest.raises(dlf.OutOfMemoryError, match="not even one tile"):
        codec.encode(IMAGE)


def test_a_bundle_that_was_not_measured_refuses_nothing(toy_bundle: Path, backend: str) -> None:
    with dlf.Codec(toy_bundle, backend, memory_limit=1) as codec:
        codec.encode(IMAGE)


def test_contexts_in_c_refuse_alike(measured: Path) -> None:
    backend = Backend(fail_if_run)
    model = Model(measured, backend=backend.pointer())
    with pytest.raises(dlf.OutOfMemoryError, match="500x300 pixels take about 75 MiB to encode on own"):
        Context(model, memory_limit=NEEDED // 2 - MIB).encode(IMAGE)
    data = dlf.Codec(measured, memory_limit=NEEDED).encode(IMAGE)
    with pytest.raises(dlf.OutOfMemoryError, match="to decode on own"):
        Context(model, memory_limit=NEEDED - MIB).decode(data)


def test_contexts_in_c_release_stages_where_images_fit_in_no_other_way(bundle_copy: Path) -> None:
    line = {**needs(1), "released": needs(0.5)}
    seal(bundle_copy, memory={"openvino": {"encode": line, "decode": line}})
    model = Model(bundle_copy, threads=1, openvino=str(openvino_library()).encode())
    context = Context(model, memory_limit=NEEDED // 2 + MIB)
    with logged() as lines:
        files = [context.encode(IMAGE) for _ in range(2)]
    assert files[0] == files[1] == dlf.Codec(bundle_copy, "openvino").encode(IMAGE)
    assert sum("loading analysis" in line for _, line in lines) == 2


def test_limits_that_are_no_sizes_are_refused_and_no_limit_is_too_large(toy_bundle: Path) -> None:
    for odd in (0, -1, 1.5, float("nan"), "4G"):
        with pytest.raises(dlf.InvalidArgumentError, match="memory_limit is"):
            dlf.Codec(toy_bundle, memory_limit=odd)
    with dlf.Codec(toy_bundle, memory_limit=2**64 + 1) as codec:
        assert codec.bundle.check_memory("openvino", "encode", 256, 256, 1, 2**64 + 1) is False


def test_command_takes_sizes_with_suffixes(measured: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(dlf.runtime.images.encode_as(IMAGE, ".png"))
    common = ["encode", str(picture), "--model", str(measured)]
    refused = CliRunner().invoke(app, [*common, "--memory-limit", "0.05G"])
    assert refused.exit_code == 1
    assert "a.png: 500x300 pixels take about 75 MiB to encode" in refused.output
    assert "the limit is 51 MiB" in refused.output
    assert CliRunner().invoke(app, [*common, "--memory-limit", "5 cows"]).exit_code == 2
    assert CliRunner().invoke(app, [*common, "--memory-limit", "80M"]).exit_code == 0


# ------------------------------------------------------------------------------------------------- machine

HELD, FREE = 3 * MIB, 1000 * MIB


def usable(root: Path, groups: str = "", **files: int | str) -> int:
    """The usable bytes of a made-up machine; `files` are those of the group at sys/fs/cgroup + `path`."""
    path = root / "sys/fs/cgroup" / str(files.pop("path", ""))
    for folder in (root / "proc/self", path):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:   {FREE >> 10} kB\n")
    (root / "proc/self/status").write_text(f"Name:\tx\nVmRSS:\t{HELD >> 10} kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(f"{content}\n")
    return int(libdlf.library().dlf_usable_memory(os.fsencode(root)))


def test_machine_has_what_is_available_and_what_is_held(tmp_path: Path) -> None:
    assert usable(tmp_path) == FREE + HELD


def test_machine_that_tells_nothing_has_no_limit(tmp_path: Path) -> None:
    assert int(libdlf.library().dlf_usable_memory(os.fsencode(tmp_path))) == 2**64 - 1


@pytest.mark.parametrize("path", ["", "a", "a/b"])
def test_group_of_version_2_leaves_what_is_not_in_use(tmp_path: Path, path: str) -> None:
    files = {"memory__max": 500 * MIB, "memory__current": 300 * MIB, "memory__stat": f"anon 1\ninactive_file {50 * MIB}"}
    assert usable(tmp_path, "0::/a/b\n", path=path, **files) == 250 * MIB + HELD


@pytest.mark.parametrize("maximum", ["max", str(5000 * MIB)])
def test_group_with_more_than_the_machine_has_does_not_count(tmp_path: Path, maximum: str) -> None:
    assert usable(tmp_path, "0::/\n", memory__max=maximum, memory__current=300 * MIB) == FREE + HELD


@pytest.mark.parametrize(("limit", "left"), [(400 * MIB, 100 * MIB), (2**63 - 4096, FREE)])
def test_group_of_version_1(tmp_path: Path, limit: int, left: int) -> None:
    files = {"memory__limit_in_bytes": limit, "memory__usage_in_bytes": 300 * MIB}
    assert usable(tmp_path, "4:memory:/a\n", path="memory/a", **files) == left + HELD
