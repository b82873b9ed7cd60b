"""Storage beside the local one: an S3 server, and a file system that only fsspec knows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.corpus import do, make_job, make_pictures, tree

import dlf
from dlf.runtime.corpus.storage import Storage


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URI of a bucket on a server of this process."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"s3://bucket?region=us-east-1&scheme=http&endpoint_override={host}:{port}&allow_bucket_creation=true"
    server.stop()


@pytest.mark.parametrize("parquet", [False, True])
def test_a_job_on_s3(s3, tmp_path, toy_bundle, parquet):
    photos = make_pictures(tmp_path / "photos", 5)
    bucket = f"photos{int(parquet)}"
    source, target = (Storage(s3.replace("bucket", f"{bucket}/{name}", 1)) for name in ("in", "out"))
    source._files.create_dir(bucket)
    for path, data in tree(photos).items():
        source.write(path, data)
    assert [entry.path for _, entries in source.walk() for entry in entries] == sorted(tree(photos))
    job = make_job("encode", source.uri, target.uri, toy_bundle, parquet=parquet)
    assert do(job).done == 5
    assert (do(job).done, do(job).skipped) == (0, 5)
    assert do(make_job("verify", source.uri, target.uri, toy_bundle, parquet=parquet)).done == 5
    do(make_job("decode", target.uri, tmp_path / "back", toy_bundle))
    codec = dlf.Codec(toy_bundle, "openvino", 1)
    if not parquet:
        assert {path: target.read(f"{path}.dlf") for path in tree(photos)} == {
            path: codec.encode(photos / path) for path in tree(photos)
        }
    assert set(tree(tmp_path / "back", ".png")) == {f"{path}.png" for path in tree(photos)}


def test_what_fsspec_knows(tmp_path, toy_bundle):
    pytest.importorskip("fsspec")
    photos = make_pictures(tmp_path / "photos", 3)
    job = make_job("encode", photos, "memory://corpus/out", toy_bundle)
    assert (do(job).done, do(job).skipped) == (3, 3)
    assert job.target.read("0000.png.dlf") == dlf.Codec(toy_bundle, "openvino", 1).encode(photos / "0000.png")
    assert do(make_job("decode", "memory://corpus/out", tmp_path / "back", toy_bundle)).done == 3


@pytest.mark.parametrize("uri", ["nothing://a/b", "s3:///"])
def test_unknown_places_are_refused(uri, tmp_path):
    with pytest.raises(dlf.InvalidArgumentError):
        list(Storage(uri).walk())


def test_a_source_that_is_not_a_folder_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(dlf.InvalidArgumentError, match="not a folder"):
            list(Storage(str(path)).walk())


def test_hidden_names_and_linked_folders_are_left_out(tmp_path: Path):
    for name in ("a", "_b", ".c", "sub/d", "_sub/e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [entry.path for _, entries in Storage(str(tmp_path)).walk() for entry in entries] == ["a", "sub/d"]
