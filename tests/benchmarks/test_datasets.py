import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from dlf.benchmarks import datasets
from dlf.runtime.errors import InvalidArgumentError

CONTENT = {"kodim01.png": b"first", "kodim02.png": b"second"}


@pytest.fixture
def two_images(monkeypatch):
    """A data set of two small files in place of the 24."""
    sums = {name: sha256(data).hexdigest() for name, data in CONTENT.items()}
    monkeypatch.setattr(datasets, "kodak_sums", lambda: sums)


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; hangs up in the middle of the files named in `broken`."""

    broken: set[str] = set()  # noqa: RUF012

    def copyfile(self, source, outputfile):
        data = source.read()
        outputfile.write(data[: len(data) // 2] if Path(self.path).name in self.broken else data)

    def log_message(self, *_): ...


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a web server that has the files of a folder."""
    with HTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    for name, data in CONTENT.items():
        (folder / name).write_bytes(data)
    with serving(folder) as address:
        yield address


def test_the_pinned_sums_are_of_24_distinct_images():
    sums = datasets.kodak_sums()
    assert list(sums) == [f"kodim{i:02}.png" for i in range(1, 25)]
    assert len(set(sums.values())) == 24
    assert all(len(digest) == 64 for digest in sums.values())


def test_the_published_images_have_the_pinned_sums(tmp_path):
    folder = Path(os.environ.get("DLF_DATA", Path(__file__).parents[3] / "shared" / "data"), "kodak")
    if not folder.is_dir():
        pytest.skip("the Kodak images are not at hand; DLF_DATA may name a folder that holds kodak/")
    assert [file.name for file in datasets.kodak(folder)] == list(datasets.kodak_sums())
    with serving(folder) as address:
        fetched = datasets.kodak(tmp_path / "kodak", download=True, home=address)
    assert [file.read_bytes() for file in fetched] == [(folder / file.name).read_bytes() for file in fetched]


def test_what_is_fetched_is_held_against_the_pinned_sums(tmp_path, home):
    with pytest.raises(InvalidArgumentError, match=r"kodim01.png from http://127.* is not the published"):
        datasets.kodak(tmp_path / "kodak", download=True, home=home)
    assert not (tmp_path / "kodak").exists()


def test_a_missing_set_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("DLF_DATA", str(tmp_path))
    with pytest.raises(
        InvalidArgumentError, match=r"24 of the 24 .*Put kodim01.png, .*, kodim24.png from https://.* into .*/kodak, .*--download"
    ):
        datasets.find("kodak")
    with pytest.raises(InvalidArgumentError, match=r"428 images .*--dataset FOLDER"):
        datasets.find("clic2020")


def test_missing_images_are_fetched_only_when_told(tmp_path, two_images, home):
    folder = tmp_path / "deep" / "kodak"
    with pytest.raises(InvalidArgumentError, match="2 of the 2"):
        datasets.kodak(folder, home=home)
    found = datasets.kodak(folder, download=True, home=home)
    assert {file.name: file.read_bytes() for file in found} == CONTENT
    assert datasets.kodak(folder, home="http://nowhere.invalid/") == found


def test_what_is_not_the_published_image_is_refused(tmp_path, two_images, home):
    for name, data in CONTENT.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "kodim02.png").write_bytes(b"changed")
    with pytest.raises(InvalidArgumentError, match=r"kodim02.png from .* is not the published"):
        datasets.kodak(tmp_path)


def test_a_download_that_is_not_the_published_image_is_not_kept(tmp_path, two_images, home):
    (tmp_path / "home" / "kodim02.png").write_bytes(b"changed")
    with pytest.raises(InvalidArgumentError, match="not the published"):
        datasets.kodak(tmp_path / "kodak", download=True, home=home)
    assert [file.name for file in (tmp_path / "kodak").iterdir()] == ["kodim01.png"]


def test_a_download_that_breaks_off_leaves_no_part_and_goes_on(tmp_path, two_images, home, monkeypatch):
    folder = tmp_path / "kodak"
    monkeypatch.setattr(Handler, "broken", {"kodim02.png"})
    with pytest.raises(InvalidArgumentError, match=rf"kodim02.png cannot be fetched .*Put kodim02.png from {home} into {folder}"):
        datasets.kodak(folder, download=True, home=home)
    assert [file.name for file in folder.iterdir()] == ["kodim01.png"]
    (tmp_path / "home" / "kodim01.png").unlink()  # not asked for again
    monkeypatch.setattr(Handler, "broken", set())
    found = datasets.kodak(folder, download=True, home=home)
    assert {file.name: file.read_bytes() for file in found} == CONTENT


def test_without_a_network_it_says_what_to_put_where(tmp_path, two_images):
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        nobody = f"http://127.0.0.1:{server.server_port}/"
    folder = tmp_path / "kodak"
    with pytest.raises(InvalidArgumentError, match=rf"refused.*Put kodim01.png, kodim02.png from {nobody} into {folder}"):
        datasets.kodak(folder, download=True, home=nobody)


def test_a_home_without_the_file_is_said(tmp_path, two_images, home):
    with pytest.raises(InvalidArgumentError, match=r"none/kodim01.png cannot be fetched \(HTTP Error 404"):
        datasets.kodak(tmp_path / "kodak", download=True, home=home + "none/")


def test_a_folder_gives_its_images_in_order(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).touch()
    assert [file.name for file in datasets.find(str(tmp_path))] == ["a.JPG", "b.png"]
    assert datasets.find(str(tmp_path / "b.png")) == [tmp_path / "b.png"]


def test_a_folder_that_cannot_be_measured_is_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match="holds no image"):
        datasets.find(str(tmp_path))
    with pytest.raises(InvalidArgumentError, match="no such folder"):
        datasets.find(str(tmp_path / "none"))
    with pytest.raises(InvalidArgumentError, match="Only kodak"):
        datasets.find(str(tmp_path), download=True)
