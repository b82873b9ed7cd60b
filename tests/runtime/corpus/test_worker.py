"""Plan and worker, in this process: what a job leaves, what it does again, and what it tells."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.bundle import make_toy_bundle
from helpers.corpus import KILLER, do, make_job, make_pictures, rows, tree
from PIL import Image

import dlf
from dlf.runtime.corpus.plan import chunks, count
from dlf.runtime.corpus.worker import Worker


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "photos", 7)


@pytest.fixture
def coded(tmp_path: Path) -> Path:
    return tmp_path / "coded"


@pytest.mark.parametrize("batch", [1, 3])
def test_results_mirror_the_sources(photos, coded, toy_bundle, batch):
    report = do(make_job("encode", photos, coded, toy_bundle, batch=batch, shard=3))
    codec = dlf.Codec(toy_bundle, "openvino", 1)
    expected = {f"{path}.dlf": codec.encode(photos / path) for path in tree(photos)}
    assert tree(coded, ".dlf") == expected
    assert (report.done, report.failed, report.skipped) == (7, 0, 0)
    assert report.result_bytes == sum(map(len, expected.values()))
    assert report.source_bytes == sum(map(len, tree(photos).values()))
    assert sorted(row.path for row in rows(coded)) == sorted(tree(photos))
    assert all(row.data is None and row.seconds > 0 for row in rows(coded))


def test_shards_hold_the_results(photos, coded, toy_bundle):
    do(make_job("encode", photos, coded, toy_bundle, parquet=True, shard=3))
    assert tree(coded, ".dlf") == {}
    codec = dlf.Codec(toy_bundle, "openvino", 1)
    assert {row.path: row.data for row in rows(coded)} == {path: codec.encode(photos / path) for path in tree(photos)}
    table = pq.read_table(next(coded.glob("*.parquet")))
    assert {"path", "width", "height", "bytes", "sha256", "seconds", "error"} <= set(table.column_names)


@pytest.mark.parametrize("parquet", [False, True])
def test_there_and_back(photos, coded, tmp_path, toy_bundle, parquet):
    do(make_job("encode", photos, coded, toy_bundle, parquet=parquet))
    report = do(make_job("decode", coded, tmp_path / "back", toy_bundle, batch=2))
    codec = dlf.Codec(toy_bundle, "openvino", 1)
    assert report.done == 7
    for path in tree(photos):
        expected = codec.decode(codec.encode(photos / path))
        got = np.asarray(Image.open(tmp_path / "back" / f"{path}.png"))
        assert np.abs(got.astype(int) - expected).max() <= 1  # a batch may change the last bit


@pytest.mark.parametrize("parquet", [False, True])
def test_done_work_is_not_done_again(photos, coded, toy_bundle, parquet):
    job = make_job("encode", photos, coded, toy_bundle, parquet=parquet, shard=3)
    do(job)
    before = {path: path.stat().st_mtime_ns for path in coded.rglob("*") if path.is_file()}
    report = do(job)
    assert (report.done, report.skipped) == (0, 7)
    assert before == {path: path.stat().st_mtime_ns for path in coded.rglob("*") if path.is_file()}


@pytest.mark.parametrize("parquet", [False, True])
def test_what_changed_is_done_again_also_at_the_same_size(photos, coded, toy_bundle, parquet):
    job = make_job("encode", photos, coded, toy_bundle, parquet=parquet)
    changed = photos / "0001.bmp"
    Image.new("RGB", (40, 30), "red").save(changed)
    do(job)
    times = changed.stat()
    Image.new("RGB", (40, 30), "blue").save(changed)
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert changed.stat().st_size == times.st_size
    make_pictures(photos, 9)  # the first seven are as they were
    report = do(job)
    assert (report.done, report.skipped) == (3, 7)
    paths = [row.path for row in rows(coded)]
    assert sorted(paths) == sorted(tree(photos)) and len(set(paths)) == len(paths)
    (row,) = [row for row in rows(coded) if row.path == "0001.bmp"]
    result = row.data if parquet else (coded / "0001.bmp.dlf").read_bytes()
    assert result == dlf.Codec(toy_bundle, "openvino", 1).encode(changed)


def test_a_lost_result_is_made_again(photos, coded, toy_bundle):
    job = make_job("encode", photos, coded, toy_bundle)
    do(job)
    (coded / "odd" / "0001.png.dlf").unlink()
    assert do(job).done == 1
    assert (coded / "odd" / "0001.png.dlf").exists()


def test_a_broken_shard_is_written_again(photos, coded, toy_bundle):
    job = make_job("encode", photos, coded, toy_bundle)
    do(job)
    for shard in coded.rglob("*.parquet"):
        shard.write_bytes(shard.read_bytes()[:50])
    assert do(job).done == 7
    assert len(rows(coded)) == 7


def test_another_model_encodes_all_again(photos, coded, toy_bundle, tmp_path):
    do(make_job("encode", photos, coded, toy_bundle))
    assert do(make_job("encode", photos, coded, make_toy_bundle(tmp_path / "other", seed=1))).done == 7


def test_bad_images_are_rows(photos, coded, toy_bundle):
    (photos / "bad.jpg").write_bytes(b"no picture")
    (photos / "empty.png").touch()
    (photos / "gone.png").symlink_to("nowhere")  # not a file
    (photos / "notes.txt").write_text("ignored")
    found: list[int] = []
    job = make_job("encode", photos, coded, toy_bundle)
    assert len(list(chunks(job, found.append))) == 2 and sum(found) == 1
    assert count(job) == 9
    report = do(job)
    assert (report.done, report.failed) == (7, 2)
    assert {row.path: row.error.split(":")[0] for row in rows(coded) if row.error} == {
        "bad.jpg": "ImageError",
        "empty.png": "ImageError",
    }
    Image.new("RGB", (4, 4)).save(photos / "bad.jpg")
    assert (do(job).done, len(rows(coded))) == (1, 9)


def test_an_image_that_fails_in_a_batch_does_not_take_the_others_along(photos, coded, toy_bundle, tmp_path):
    do(make_job("encode", photos, coded, toy_bundle))
    data = bytearray((coded / "0002.png.dlf").read_bytes())
    data[-1] ^= 1  # of the checksum: the header is right
    (coded / "0002.png.dlf").write_bytes(data)
    report = do(make_job("decode", coded, tmp_path / "back", toy_bundle, batch=4))
    assert report.done == 6 and report.errors["0002.png.dlf"].startswith("ChecksumError")


def test_names_that_are_no_text_are_told_but_not_recorded(tmp_path, coded, toy_bundle):
    photos = make_pictures(tmp_path / "photos", 1)
    shutil.copy(photos / "0000.png", os.fsencode(photos) + b"/\xff.png")
    job = make_job("encode", photos, coded, toy_bundle)
    report = do(job)
    assert report.done == 1 and "UnicodeEncodeError" in report.errors["\udcff.png"]
    assert [row.path for row in rows(coded)] == ["0000.png"]


def test_the_image_that_ends_the_process_is_found(photos, coded, toy_bundle):
    """The process cannot end here: what its end leaves, the note of the image, is written by hand."""
    job = make_job("encode", photos, coded, toy_bundle)
    first = next(chunks(job))
    killer = first.sources[1].path
    work = Worker(job)
    job.target.write(f"_rows/_suspects/{first.shard.replace('/', '-')}.txt", killer.encode())
    found = {each.row.path: each.row.error for each in work.run(first.again())}
    assert found.pop(killer) == "it ended the process that worked on it, twice"
    assert set(found.values()) == {None} and len(found) == len(first.sources) - 1
    assert not tree(coded, ".txt")
    assert {each.row.error for each in work.run(first)} == {None}  # a later run tries it again
    assert KILLER not in {Image.open(photos / path).height for path in tree(photos)}


def test_verify(photos, coded, toy_bundle):
    do(make_job("encode", photos, coded, toy_bundle))
    job = make_job("verify", photos, coded, toy_bundle)
    before = tree(coded)
    assert (do(job).done, do(job).failed) == (7, 0)
    Image.new("RGB", (4, 4)).save(photos / "0000.png")  # changed
    Image.new("RGB", (4, 4)).save(photos / "new.png")
    (coded / "0002.png.dlf").unlink()
    (coded / "0004.png.dlf").write_bytes(before["0006.png.dlf"])
    errors = do(job).errors
    assert set(errors) == {"0000.png", "new.png", "0002.png", "0004.png"}
    assert "changed since" in errors["0000.png"] and "no result" in errors["new.png"]
    assert "FileNotFoundError" in errors["0002.png"] and "not what was written" in errors["0004.png"]


def test_the_disk_is_full(photos, coded, toy_bundle, monkeypatch):
    job = make_job("encode", photos, coded, toy_bundle)
    monkeypatch.setattr("dlf.runtime.corpus.storage.write_atomically", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        do(job)
    assert rows(coded) == []
