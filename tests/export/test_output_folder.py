"""Folders are written whole or not at all, also by processes that are killed; what dead ones leave is removed, nothing else."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dlf.export import output_folder
from dlf.export.output_folder import PREFIX, REPLACED, workplace, writing
from dlf.runtime.errors import ExportError

FILES = ("a", "b", "c")

# Replaces a folder by the next version again and again, telling each.
WRITER = """
import signal, sys
from pathlib import Path
from dlf.export import output_folder
if sys.argv[2] == "no exchange":
    output_folder._exchange = lambda one, other: False
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
version = int(sys.argv[3])
while True:
    with output_folder.writing(Path(sys.argv[1]), 0) as folder:
        for name in ("a", "b", "c"):
            (folder / name).write_text(str(version))
    print(version, flush=True)
    version += 1
"""


def version(folder: Path) -> int:
    """The version of a folder that is whole."""
    assert sorted(file.name for file in folder.iterdir()) == list(FILES)
    (only,) = {int((folder / name).read_text()) for name in FILES}
    return only


def write(output: Path, content: int) -> None:
    with writing(output, 0) as folder:
        for name in FILES:
            (folder / name).write_text(str(content))


@pytest.mark.parametrize("way", ["exchange", "no exchange"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_killed_writer_leaves_the_old_or_the_new_and_the_next_one_tidies_up(tmp_path, way, end):
    output = tmp_path / "out"
    write(output, 0)
    last, choose = 0, random.Random(end + len(way))
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(output), way, str(last + 1)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(choose.randint(1, 40)):  # meanwhile it goes on, so that the signal finds it anywhere
            told = int(writer.stdout.readline())
        writer.send_signal(end)
        told = max([told, *map(int, writer.stdout.read().split())])
        assert writer.wait() == {signal.SIGKILL: -9, signal.SIGTERM: 143}[end]
        if end == signal.SIGTERM:
            assert [file.name for file in tmp_path.iterdir()] == ["out"]
        if way == "exchange":
            assert version(output) in (told, told + 1)
        with workplace(output):  # as the next exporter begins
            last = version(output)
        assert last in (told, told + 1)
        assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_folder_that_a_dead_process_took_away_is_put_back_and_told(tmp_path, caplog):
    place = tmp_path / f"{PREFIX}0"
    write(place / REPLACED / "out", 1)
    write(place / "new", 2)
    with workplace(tmp_path / "another"):
        assert version(tmp_path / "out") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert f"{tmp_path}/out: is back" in caplog.text


def test_workplace_of_a_living_process_is_left_alone(tmp_path):
    with workplace(tmp_path / "out") as first:
        write(tmp_path / "out", 1)
        assert first.is_dir()
    assert version(tmp_path / "out") == 1


def test_workplaces_may_be_in_each_other(tmp_path):
    with workplace(tmp_path / "out") as outer, workplace(tmp_path / "out"):
        write(outer / "first", 1)
        assert version(outer / "first") == 1
    assert list(tmp_path.iterdir()) == []


def test_error_leaves_the_old_folder(tmp_path):
    write(tmp_path / "out", 1)
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "out", 0):
        raise ZeroDivisionError
    assert version(tmp_path / "out") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_without_exchange_an_error_puts_the_old_folder_back(tmp_path, monkeypatch):
    monkeypatch.setattr(output_folder, "_exchange", lambda one, other: False)
    write(tmp_path / "out", 1)
    with pytest.raises(ExportError, match="No such file"), writing(tmp_path / "out", 0) as folder:
        folder.rmdir()  # so that the second rename fails
    assert version(tmp_path / "out") == 1


def test_link_is_followed(tmp_path):
    write(tmp_path / "real" / "out", 1)
    (tmp_path / "link").symlink_to("real/out")
    write(tmp_path / "link", 2)
    assert (tmp_path / "link").is_symlink()
    assert version(tmp_path / "real" / "out") == 2


def test_new_folder_has_the_usual_permissions(tmp_path):
    write(tmp_path / "out", 1)
    (tmp_path / "usual").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_refuses_a_disk_without_room_before_the_block(tmp_path):
    with pytest.raises(ExportError, match="MB free"), writing(tmp_path / "out", 1 << 60):
        pytest.fail("the work began")
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_place_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=f"{tmp_path}/file"), workplace(tmp_path / "file" / "out"):
        pytest.fail("the work began")


def test_refuses_a_mounted_file_system():
    with pytest.raises(ExportError, match="mounted"), writing(Path("/proc"), 0):
        pytest.fail("the work began")


def test_disk_that_fills_is_an_error_of_the_export(tmp_path):
    write(tmp_path / "out", 1)
    with pytest.raises(ExportError, match=r"out: cannot be written .*No space left"), writing(tmp_path / "out", 0):
        Path("/dev/full").write_text("all")
    assert version(tmp_path / "out") == 1
