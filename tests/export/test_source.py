"""The source of an export: files, bundles, and folders as model hubs lay them out."""

from pathlib import Path

import pytest

from dlf.export.source import find
from dlf.runtime.errors import CheckpointError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A hub's repository with two revisions, whose files are links."""
    folder = tmp_path / "models--authors--dlf"
    for revision in ("1111", "2222"):
        snapshot = folder / "snapshots" / revision
        snapshot.mkdir(parents=True)
        (folder / "blobs").mkdir(exist_ok=True)
        (folder / "blobs" / f"blob{revision}").write_bytes(b"tensors")
        (snapshot / "qp0.ckpt").symlink_to(f"../../blobs/blob{revision}")
        (snapshot / "README.md").write_text("# DLF")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("2222\n")
    return folder


def test_repository_stands_for_the_checkpoint_of_its_main_revision(repository: Path) -> None:
    assert find(repository) == repository / "snapshots" / "2222" / "qp0.ckpt"
    assert find(repository / "snapshots" / "1111") == repository / "snapshots" / "1111" / "qp0.ckpt"


def test_repository_without_refs_needs_one_snapshot(repository: Path) -> None:
    (repository / "refs" / "main").unlink()
    with pytest.raises(CheckpointError, match=r"holds neither a bundle nor a checkpoint \(\.ckpt"):
        find(repository)
    for file in (repository / "snapshots" / "2222").iterdir():
        file.unlink()
    (repository / "snapshots" / "2222").rmdir()
    assert find(repository) == repository / "snapshots" / "1111" / "qp0.ckpt"


def test_bundle_of_links_is_found(repository: Path) -> None:
    snapshot = repository / "snapshots" / "2222"
    (snapshot / "manifest.json").symlink_to("../../blobs/blob2222")
    assert find(repository) == snapshot
    assert find(snapshot) == snapshot


def test_several_checkpoints_are_named(repository: Path) -> None:
    (repository / "snapshots" / "2222" / "qp1.safetensors").symlink_to("../../blobs/blob1111")
    with pytest.raises(CheckpointError, match=r"several checkpoints, qp0\.ckpt, qp1\.safetensors; name one"):
        find(repository)


def test_files_are_themselves_also_where_there_are_none(tmp_path: Path) -> None:
    assert find(tmp_path / "gone.ckpt") == tmp_path / "gone.ckpt"
