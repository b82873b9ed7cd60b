import pytest
from PIL import Image

from dlf.benchmarks.progress_file import ProgressFile, key
from dlf.benchmarks.records import Coding, ImageResult

RESULT = ImageResult("a.png", "00", 8, 9, {"header": 8}, 0.5, [Coding("dlf", 100, 0.1, {"PSNR": 30.0})])


def test_keeps_results_and_pictures(tmp_path):
    path = tmp_path / "report.json.partial"
    first = ProgressFile(path)
    first.add("a", RESULT, {"original": "data:,"})
    again = ProgressFile(path)
    assert again.find("a") == (RESULT, {"original": "data:,"})
    assert again.find("b") is None
    again.remove()
    assert not path.exists()


def test_a_line_cut_off_is_dropped(tmp_path):
    path = tmp_path / "partial"
    for name in "ab":
        ProgressFile(path).add(name, RESULT, {})
    path.write_bytes(path.read_bytes()[:-10])
    torn = ProgressFile(path)
    assert (torn.find("a"), torn.find("b")) == ((RESULT, {}), None)
    torn.add("c", RESULT, {})
    assert ProgressFile(path).find("c") == (RESULT, {})


def test_without_a_path_nothing_is_kept():
    kept = ProgressFile(None)
    kept.add("a", RESULT, {})
    assert kept.find("a") is None


@pytest.mark.parametrize("change", ["name", "bytes", "settings"])
def test_a_key_is_of_all_that_the_result_depends_on(tmp_path, change):
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 2)).save(path)
    before = key(path, {"threads": 1})
    assert key(path, {"threads": 1}) == before
    if change == "name":
        path = path.rename(tmp_path / "b.png")
    elif change == "bytes":
        Image.new("RGB", (2, 2), "red").save(path)
    assert key(path, {"threads": 2 if change == "settings" else 1}) != before
