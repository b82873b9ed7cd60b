"""The bundle reader of libdlf refuses what Python's refuses, as the same kind, and reads what it reads."""

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.bundle import link_files, seal
from helpers.native import Backend, Context, Model, check_manifest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlf.runtime import errors
from dlf.runtime.bundles.bundle import Bundle

REFUSALS = (errors.BundleBrokenError, errors.BundleForeignError)


def load_native(folder: Path, stage: str | None) -> None:
    """Open a bundle, and load a stage with a backend that takes anything."""
    backend = Backend(lambda name, file: dict)
    model = Model(folder, backend=backend.pointer())
    if stage is not None:
        Context(model).prepare(1 if stage == "analysis" else 2)


def load_python(folder: Path, stage: str | None) -> None:
    bundle = Bundle(folder)
    if stage is not None:
        bundle.stage(stage)


def refused_alike(folder: Path, stage: str | None = None) -> str:
    """Both readers refuse it, as the same kind; the C one's message."""
    with pytest.raises(REFUSALS) as native:
        load_native(folder, stage)
    with pytest.raises(REFUSALS) as python:
        load_python(folder, stage)
    assert native.type is python.type
    assert str(folder) in str(native.value)
    return str(native.value)


def change_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_folder_without_manifest_is_foreign(tmp_path):
    assert "dlf-export" in refused_alike(tmp_path)
    assert "not a bundle" in refused_alike(tmp_path / "none")


@pytest.mark.parametrize(
    "content",
    [
        b'{"format": "other"}',
        b"[]",
        b"3",
        b'{"format": null}',
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": "dlf-bundle"}',
    ]
    + [b'{"format": "dlf-bundle", "format_version": %s}' % version for version in (b"2", b"0", b"null", b'"1"', b"[]")],
)
def test_manifest_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    refused_alike(tmp_path)


def test_manifest_that_is_no_file_is_broken(tmp_path):
    (tmp_path / "manifest.json").mkdir()
    refused_alike(tmp_path)


def test_manifest_that_is_a_pipe_is_broken(tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    refused_alike(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": None},
        {"files": []},
        {"files": {"entropy.bin": {"bytes": "many", "sha256": ""}}},
        {"files": {"entropy.bin": {}}},
        {"files": {"entropy.bin": 3}},
        {"files": {}},
        {"stages": None},
        {"stages": {"analysis": {}}},
        {"stages": {"analysis": 3}},
        {"model": "toy"},
        {"model": {"name": "toy", "license": 3}},
        {"model": {"name": "toy", "license": None}},
        {"fingerprint": "0000"},
        {"memory": []},
        {"memory": {"openvino": {"encode": {"bytes": 1, "bytes_per_pixel": 1}}}},
        {"memory": {"openvino": {key: {"bytes": 1, "bytes_per_pixel": 0} for key in ("encode", "decode")}}},
    ],
    ids=str,
)
def test_bad_field_is_broken(bundle_copy, changes):
    change_manifest(bundle_copy, **changes)
    assert "again" in refused_alike(bundle_copy)


@pytest.mark.parametrize("field", ["files", "stages", "model", "fingerprint", "precision"])
def test_missing_field_is_broken(bundle_copy, field):
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    del manifest[field]
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    assert field in refused_alike(bundle_copy)


@pytest.mark.parametrize("field", ["file", "precision", "inputs"])
def test_missing_field_of_a_stage_is_broken(bundle_copy, field):
    stages = json.loads((bundle_copy / "manifest.json").read_text())["stages"]
    del stages["generator"][field]
    change_manifest(bundle_copy, stages=stages)
    assert field in refused_alike(bundle_copy)


@pytest.mark.parametrize("name", ["entropy.bin", "analysis.onnx", "analysis.onnx.data"])
@pytest.mark.parametrize("damage", ["missing", "unlisted", "longer", "flipped", "directory"])
def test_damaged_file_is_broken(bundle_copy, name, damage):
    path = bundle_copy / name
    data = path.read_bytes()
    if damage == "unlisted":
        files = json.loads((bundle_copy / "manifest.json").read_text())["files"]
        del files[name]
        change_manifest(bundle_copy, files=files)
    elif damage == "longer":
        path.write_bytes(data + b"\0")
    elif damage == "flipped":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    else:
        path.unlink()
        if damage == "directory":
            path.mkdir()
    message = refused_alike(bundle_copy, "analysis")
    assert name in message
    assert "again" in message


def test_missing_stage_is_broken(bundle_copy):
    change_manifest(bundle_copy, stages={})
    assert "analysis" in refused_alike(bundle_copy, "analysis")


@pytest.mark.parametrize("name", ["../outside.onnx", "sub/inside.onnx", ".", "..", "", "/etc/passwd", "a\\b", "a\0b"])
def test_name_that_is_not_plain_is_broken(bundle_copy, name):
    (bundle_copy.parent / "outside.onnx").write_bytes(b"x")
    (bundle_copy / "sub").mkdir()
    (bundle_copy / "sub" / "inside.onnx").write_bytes(b"x")
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    entry = {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    change_manifest(
        bundle_copy,
        files={**manifest["files"], name: entry},
        stages={"analysis": {"file": name, "precision": "fp32", "inputs": []}},
    )
    assert "is not a plain file name" in refused_alike(bundle_copy, "analysis")


def test_bundle_of_links_is_read_wherever_they_lead(toy_bundle, tmp_path):
    load_native(link_files(toy_bundle, tmp_path), "analysis")


def test_bundle_behind_a_link_is_read(toy_bundle, tmp_path):
    (tmp_path / "link").symlink_to(toy_bundle)
    load_native(tmp_path / "link", "analysis")


@pytest.mark.parametrize("content", [b"JUNK" * 20, b"DLFE\1\0\0\0", b""])
def test_file_that_is_no_entropy_model_is_refused(bundle_copy, content):
    (bundle_copy / "entropy.bin").write_bytes(content)
    seal(bundle_copy)
    assert "entropy.bin" in refused_alike(bundle_copy)


# -------------------------------------------------------------------------------------- external data and hashes


def location(name: bytes) -> bytes:
    """What says in an ONNX file where its weights are."""
    return b"\n\x08location\x12" + bytes([len(name)]) + name


def set_analysis(folder: Path, content: bytes) -> None:
    (folder / "analysis.onnx").write_bytes(content)
    seal(folder)


@pytest.mark.parametrize(
    "name", [b"../outside.data", b"sub/../../outside.data", b"/etc/passwd", b"link.data", b"no.data", b"\xff", b""]
)
def test_external_data_that_the_manifest_does_not_vouch_for_are_broken(bundle_copy, name):
    set_analysis(bundle_copy, b"before" + location(name) + b"after")
    (bundle_copy.parent / "outside.data").write_bytes(b"x")
    (bundle_copy / "link.data").symlink_to(bundle_copy.parent / "outside.data")  # which the manifest does not list
    refused_alike(bundle_copy, "analysis")


@pytest.mark.parametrize("before", [0, 1, (1 << 20) - 30, (1 << 20) - 11, (1 << 20) - 5, (1 << 20) - 1, 1 << 20, 3 << 20])
def test_location_is_found_wherever_it_stands(bundle_copy, before):
    """Files are read in pieces of 2^20 bytes."""
    for after in (0, 300):
        set_analysis(bundle_copy, bytes(before) + location(b"entropy.bin") + location(b"missing") + bytes(after))
        assert "missing is not listed" in refused_alike(bundle_copy, "analysis")
        set_analysis(bundle_copy, bytes(before) + location(b"entropy.bin") + bytes(after))
        load_native(bundle_copy, "analysis")


@pytest.mark.parametrize("end", [location(b"missing")[:-3], location(b"")[:-1], location(b"")[:-2]])
def test_location_may_be_cut_short_by_the_files_end(bundle_copy, end):
    set_analysis(bundle_copy, b"x" + end)
    if len(end) > len(location(b"")):
        assert "miss" in refused_alike(bundle_copy, "analysis")
    else:
        Bundle(bundle_copy).stage("analysis")
        load_native(bundle_copy, "analysis")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(size=st.one_of(st.integers(0, 300), st.integers((1 << 20) - 70, (1 << 20) + 70)), seed=st.integers(0, 2**32 - 1))
def test_hashes_are_those_of_hashlib(bundle_copy, size, seed):
    """Of every length around a block of 64 bytes and a piece of 2^20."""
    content = np.random.default_rng(seed).bytes(size)
    (bundle_copy / "analysis.onnx").write_bytes(content)
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    for digest, accepted in [(hashlib.sha256(content).hexdigest(), True), (hashlib.sha256(content + b"\0").hexdigest(), False)]:
        manifest["files"]["analysis.onnx"] = {"bytes": size, "sha256": digest}
        (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
        if accepted:
            load_native(bundle_copy, "analysis")
        else:
            with pytest.raises(errors.BundleBrokenError, match="SHA-256"):
                load_native(bundle_copy, "analysis")


def test_files_are_checked_when_a_stage_is_first_needed(bundle_copy):
    backend = Backend(lambda name, file: dict)
    model = Model(bundle_copy, backend=backend.pointer())
    Context(model).prepare(1)
    (bundle_copy / "analysis.onnx").write_bytes(b"changed")
    (bundle_copy / "generator.onnx").write_bytes(b"changed")
    Context(model).prepare(1)  # what is loaded stays
    with pytest.raises(errors.BundleBrokenError, match=r"generator\.onnx has 7 bytes"):
        Context(model).prepare(2)
    assert backend.names == ["analysis", "synthesis", "adaptor"]


def test_threads_that_need_a_stage_at_once_load_it_once(toy_bundle):
    backend = Backend(lambda name, file: dict)
    model = Model(toy_bundle, backend=backend.pointer())
    threads = [threading.Thread(target=lambda: Context(model).prepare(3)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(backend.names) == ["adaptor", "analysis", "generator", "synthesis"]


# ----------------------------------------------------------------------------------------- dlf_manifest_check


def test_manifest_check_takes_a_bundles_manifest(toy_bundle):
    assert check_manifest((toy_bundle / "manifest.json").read_bytes()) == (0, "")


@pytest.mark.parametrize(
    ("data", "kind", "fact"),
    [
        (b"", errors.BundleBrokenError, "not JSON"),
        (b"{}", errors.BundleForeignError, "another format"),
        (b'{"format": "dlf-bundle", "format_version": 7}', errors.BundleForeignError, "version 7"),
        (b'{"format": "dlf-bundle", "format_version": 1}', errors.BundleBrokenError, "garbles"),
        (b" " * ((1 << 20) + 1), errors.BundleBrokenError, "larger than 1048576 bytes"),
    ],
)
def test_manifest_check_says_what_is_wrong(data, kind, fact):
    result, message = check_manifest(data)
    assert result == kind.code
    assert fact in message


def test_manifest_check_cuts_its_message():
    assert check_manifest(b"{}", 4) == (errors.BundleForeignError.code, "has")


JSON: Callable[[], st.SearchStrategy[object]] = lambda: st.recursive(  # noqa: E731
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_value_in_any_field_is_taken_or_refused(toy_bundle, data):
    manifest = json.loads((toy_bundle / "manifest.json").read_text())
    place = manifest
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON())
    result, message = check_manifest(json.dumps(manifest).encode())
    assert result in (0, errors.BundleBrokenError.code, errors.BundleForeignError.code)
    assert bool(result) == bool(message)


@settings(deadline=None)
@given(st.binary(max_size=12))
def test_messages_are_utf8_whatever_a_file_holds(content):
    """And Python's decoder, which keeps to RFC 3629, is the judge."""
    manifest = b'{"format": "dlf-bundle", "format_version": "' + content
    _, message = check_manifest(manifest, 90)  # which cuts it
    assert not set(message) & ({chr(code) for code in range(32)} - {"\n"} | {"\x7f"})
