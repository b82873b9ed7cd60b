import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.bundle import PORTS, LoneStage, link_files, retype, save_stage, seal
from onnx import helper

import dlf
from dlf.runtime.backends.choice import open_backend
from dlf.runtime.bundles.bundle import Bundle

GRAY = np.full((4, 4), 128, np.uint8)


def change_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder: Path, kind: type[dlf.DLFError], fact: str) -> None:
    with pytest.raises(kind, match=fact) as refusal:
        Bundle(folder)
    assert str(folder) in str(refusal.value)


def test_bundle_tells_its_model(toy_bundle):
    bundle = Bundle(str(toy_bundle))
    assert bundle.name == "toy"
    assert bundle.fingerprint == f"{bundle.entropy.fingerprint:04x}"
    assert bundle.stage("analysis") == toy_bundle / "analysis.onnx"


def test_folder_without_manifest_is_foreign(tmp_path):
    refused(tmp_path, dlf.BundleForeignError, r"no manifest\.json.*dlf-export")
    refused(tmp_path / "none", dlf.BundleForeignError, "not a bundle")


@pytest.mark.parametrize("content", ['{"format": "other"}', "[]", "3", '{"format": null}'])
def test_manifest_of_another_format_is_foreign(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    refused(tmp_path, dlf.BundleForeignError, "not a bundle")


@pytest.mark.parametrize("version", [2, 0, None, "1", True])
def test_other_format_version_is_foreign(bundle_copy, version):
    change_manifest(bundle_copy, format_version=version)
    told = version if type(version) is int else "unknown"
    refused(bundle_copy, dlf.BundleForeignError, f"version {told}.*reads version 1")


NOT_JSON = {
    "empty": b"",
    "cut": b"{",
    "not UTF-8": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "deep and whole": b"[" * 100_000 + b"]" * 100_000,
    "infinite": b'{"format": "dlf-bundle", "format_version": 1, "scale": Infinity}',
    "not a number": b'{"format": "dlf-bundle", "format_version": 1, "scale": NaN}',
    "too large a number": b'{"format": "dlf-bundle", "format_version": 1, "scale": 1e400}',
    "byte 0": b'{"format": "dlf-bundle", "format_version": 1}\0',
    "too long": b" " * (1 << 20) + b"{}",
}


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_manifest_that_is_not_json_is_broken(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    refused(tmp_path, dlf.BundleBrokenError, r"manifest\.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"files": None},
        {"files": []},
        {"files": {"entropy.bin": {"bytes": "many", "sha256": ""}}},
        {"files": {"entropy.bin": {"bytes": "107", "sha256": ""}}},
        {"files": {"entropy.bin": {"bytes": -1, "sha256": ""}}},
        {"files": {"entropy.bin": {"bytes": 1.5, "sha256": ""}}},
        {"files": {"entropy.bin": {}}},
        {"stages": None},
        {"stages": {"analysis": {}}},
        {"model": "toy"},
        {"model": {"name": "toy", "license": 3}},
        {"model": {"name": "toy", "license": None}},
    ],
)
def test_manifest_with_a_bad_field_is_broken(bundle_copy, changes):
    change_manifest(bundle_copy, **changes)
    refused(bundle_copy, dlf.BundleBrokenError, r"manifest\.json.*again")


@pytest.mark.parametrize("field", ["files", "stages", "model", "fingerprint"])
def test_manifest_without_a_field_is_broken(bundle_copy, field):
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    del manifest[field]
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    refused(bundle_copy, dlf.BundleBrokenError, field)


@pytest.mark.parametrize("name", ["entropy.bin", "analysis.onnx", "analysis.onnx.data", "generator.onnx"])
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
    with pytest.raises(dlf.BundleBrokenError, match=rf"{name}.*again"):
        Bundle(bundle_copy).stage(name.split(".")[0])


@pytest.mark.parametrize("stage", ["analysis", "generator"])
def test_missing_stage_is_broken(bundle_copy, stage):
    change_manifest(bundle_copy, stages={})
    with pytest.raises(dlf.BundleBrokenError, match=stage):
        Bundle(bundle_copy).stage(stage)


@pytest.mark.parametrize("name", ["../outside.onnx", "sub/inside.onnx", ".", "..", "", "/etc/passwd", "a\\b", "a\0b"])
def test_name_that_is_not_plain_is_broken(bundle_copy, name):
    (bundle_copy.parent / "outside.onnx").write_bytes(b"x")
    (bundle_copy / "sub").mkdir()
    (bundle_copy / "sub" / "inside.onnx").write_bytes(b"x")
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    entry = {"bytes": 1, "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}  # of "x"
    stages = {"analysis": {"file": name, "precision": "fp32", "inputs": []}}
    change_manifest(bundle_copy, files={**manifest["files"], name: entry}, stages=stages)
    with pytest.raises(dlf.BundleBrokenError, match="plain file name"):
        Bundle(bundle_copy).stage("analysis")


def put_special(path: Path, kind: str) -> None:
    """Put something that is no regular file in a file's place."""
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": Path("/dev/zero"), "loop": path, "nowhere": path.parent / "none"}[kind])


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "loop"])
@pytest.mark.parametrize("name", ["manifest.json", "entropy.bin", "generator.onnx", "analysis.onnx.data"])
def test_what_is_no_regular_file_is_broken_at_once(bundle_copy, name, kind):
    put_special(bundle_copy / name, kind)
    with pytest.raises(dlf.BundleBrokenError, match=rf"{name} cannot be read"):
        Bundle(bundle_copy).stage(name.split(".")[0])


def test_link_to_nothing_is_refused(bundle_copy):
    put_special(bundle_copy / "generator.onnx", "nowhere")
    with pytest.raises(dlf.BundleBrokenError, match=r"generator\.onnx cannot be read"):
        Bundle(bundle_copy).stage("generator")
    put_special(bundle_copy / "manifest.json", "nowhere")
    refused(bundle_copy, dlf.BundleForeignError, r"no manifest\.json")


def test_bundle_of_links_is_read_wherever_they_lead(toy_bundle, tmp_path, backend):
    """As model hubs keep them: each file a link into a folder where it has another name."""
    linked = link_files(toy_bundle, tmp_path)
    assert dlf.Codec(linked, backend, threads=1).encode(GRAY) == dlf.Codec(toy_bundle, backend, threads=1).encode(GRAY)


def test_link_to_a_file_of_another_hash_is_broken(toy_bundle, tmp_path):
    linked = link_files(toy_bundle, tmp_path)
    (linked / "generator.onnx").unlink()
    (linked / "generator.onnx").symlink_to(toy_bundle / "adaptor.onnx")
    with pytest.raises(dlf.BundleBrokenError, match=r"generator\.onnx has"):
        Bundle(linked).stage("generator")


def test_bundle_behind_a_link_is_read(toy_bundle, tmp_path):
    (tmp_path / "link").symlink_to(toy_bundle)
    assert Bundle(tmp_path / "link").stage("generator").is_file()


def test_other_entropy_model_than_the_manifest_says_is_broken(bundle_copy):
    seal(bundle_copy, fingerprint="0000")
    refused(bundle_copy, dlf.BundleBrokenError, "fingerprint.*0000")


@pytest.mark.parametrize(("content", "kind"), [(b"JUNK" * 20, dlf.BundleForeignError), (b"DLFE\1\0\0\0", dlf.BundleBrokenError)])
def test_file_that_is_no_entropy_model_is_refused(bundle_copy, content, kind):
    (bundle_copy / "entropy.bin").write_bytes(content)
    seal(bundle_copy)
    refused(bundle_copy, kind, r"entropy\.bin")


# ------------------------------------------------------------------------------ stages that the manifest vouches for


def move_external_data(folder: Path, location: str) -> None:
    """Make the analysis stage look for its weights at `location`."""
    model = onnx.load(folder / "analysis.onnx", load_external_data=False)
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"]
    for entry in entries:
        entry.value = location
    (folder / "analysis.onnx").write_bytes(model.SerializeToString())
    (folder / "analysis.onnx.data").rename(folder.parent / "outside.data")
    seal(folder)
    (folder / "sub").mkdir()


LEADING_OUT = ["../outside.data", "sub/../../outside.data", "ABSOLUTE"]


@pytest.mark.parametrize("location", LEADING_OUT)
def test_external_data_outside_the_folder_are_broken(bundle_copy, location):
    location = location.replace("ABSOLUTE", str(bundle_copy.parent / "outside.data"))
    move_external_data(bundle_copy, location)
    with pytest.raises(dlf.BundleBrokenError, match=location):
        Bundle(bundle_copy).stage("analysis")


@pytest.mark.parametrize("location", LEADING_OUT)
def test_backends_refuse_external_data_outside_the_folder_themselves(bundle_copy, backend, location):
    location = location.replace("ABSOLUTE", str(bundle_copy.parent / "outside.data"))
    move_external_data(bundle_copy, location)
    with pytest.raises(Exception, match=r"External data|outside"):
        open_backend(backend, 1).load(LoneStage(bundle_copy / "analysis.onnx"), "")


def test_stage_that_is_not_onnx_is_refused(bundle_copy, backend):
    (bundle_copy / "analysis.onnx").write_bytes(b"not a model")
    seal(bundle_copy)
    with pytest.raises(dlf.BackendFailedError, match=f"{backend} could not load stage analysis"):
        dlf.Codec(bundle_copy, backend).encode(GRAY)


def test_stage_that_cannot_run_is_refused(bundle_copy, backend):
    node = helper.make_node("Identity", ["another"], ["z"])
    save_stage(bundle_copy / "analysis.onnx", [node], {"another": ["n"]}, {"z": ["n"]})
    seal(bundle_copy)
    with pytest.raises(dlf.BackendFailedError, match=f"{backend} could not run stage analysis"):
        dlf.Codec(bundle_copy, backend).encode(GRAY)


@pytest.mark.parametrize("output", ["z", "other"])
def test_stage_with_other_outputs_than_the_codec_needs_is_broken(bundle_copy, backend, output):
    node = helper.make_node("Identity", ["image"], [output])
    save_stage(bundle_copy / "analysis.onnx", [node], {"image": ["n", 3, "h", "w"]}, {output: ["n", 3, "h", "w"]})
    seal(bundle_copy)
    with pytest.raises(dlf.BundleBrokenError, match=r"stage analysis.* z\b"):
        dlf.Codec(bundle_copy, backend).encode(GRAY)


def _round_trip(codec, data):
    codec.encode(GRAY)
    codec.decode(data)


@pytest.mark.parametrize("dtype", ["UINT8", "INT32", "FLOAT16", "DOUBLE"])
@pytest.mark.parametrize(("stage", "port"), PORTS)
def test_stage_of_another_type_than_float32_is_refused(bundle_copy, toy_bundle, backend, stage, port, dtype):
    data = dlf.Codec(toy_bundle, backend).encode(GRAY)
    retype(bundle_copy, stage, port, getattr(onnx.TensorProto, dtype))
    with pytest.raises(dlf.BundleBrokenError, match=rf"{stage}.*{port}.* not of float32; export"):
        _round_trip(dlf.Codec(bundle_copy, backend), data)


def test_values_that_are_not_finite_never_become_a_picture(bundle_copy, backend):
    with dlf.Codec(bundle_copy, backend) as codec:
        data = codec.encode(GRAY)
    adaptor = onnx.load(bundle_copy / "adaptor.onnx")
    weight = onnx.numpy_helper.to_array(adaptor.graph.initializer[0]) * np.float32("nan")
    adaptor.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "tint"))
    generator = onnx.load(bundle_copy / "generator.onnx")
    generator.graph.node[-1].CopyFrom(helper.make_node("Identity", ["large"], ["image"]))  # instead of Clip
    onnx.save(adaptor, bundle_copy / "adaptor.onnx")
    onnx.save(generator, bundle_copy / "generator.onnx")
    seal(bundle_copy)
    with pytest.raises(dlf.BackendFailedError, match="not finite"):
        dlf.Codec(bundle_copy, backend).decode(data)
