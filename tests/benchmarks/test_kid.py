from itertools import permutations, product

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dlf.benchmarks import kid
from dlf.runtime.errors import InvalidArgumentError


class Means(torch.nn.Module):
    """Instead of VGG16, whose weights a test must not fetch: the channels' means of each patch, as "features"."""

    def __init__(self, network):
        super().__init__()

    def forward(self, x):
        return [x]


def test_the_estimate_is_the_sum_over_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), rng.normal(1, 2, size=(4, 3))

    def kernel(a, b):
        return (np.dot(a, b) / 3 + 1) ** 3

    expected = (
        np.mean([kernel(a, b) for a, b in permutations(x, 2)])
        + np.mean([kernel(a, b) for a, b in permutations(y, 2)])
        - 2 * np.mean([kernel(a, b) for a, b in product(x, y)])
    )
    assert kid.kid(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected)


def test_samples_of_one_distribution_are_near_and_of_two_are_far():
    torch.manual_seed(0)
    x, y = torch.randn(2, 2000, 8)
    assert abs(kid.kid(x, y)) < 0.01
    assert kid.kid(x, y + 1) > 0.5


def test_features_are_of_the_patches_that_fit(monkeypatch):
    monkeypatch.setattr(kid, "Features", Means)
    image = torch.zeros(1, 3, 128 + 50, 2 * 128 + 3)
    image[..., :128, 128:256] = 1.0
    found = kid.PatchFeatures()(image)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(found, torch.stack([(0.5 - mean) / deviation, (1 - mean) / deviation]))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(kid, "Features", Means)
    rng = np.random.default_rng(0)
    for name, shift in (("originals", 0), ("decoded", 60)):
        (tmp_path / name).mkdir()
        for i, level in enumerate(rng.integers(0, 190, 4)):
            Image.new("RGB", (300, 140), (int(level) + shift,) * 3).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_the_command_prints_the_distance_of_two_folders(folders):
    result = CliRunner().invoke(kid.app, [str(folders / "originals"), str(folders / "decoded")])
    assert result.exit_code == 0, result.output
    assert float(result.output.rpartition(" ")[2]) == pytest.approx(
        kid.of_folders(folders / "originals", folders / "decoded"), abs=1e-4
    )
    assert "VGG16" in result.output


@pytest.mark.parametrize(("size", "message"), [((300, 100), "has not two patches"), (None, "holds no image")])
def test_folders_without_patches_are_refused(folders, size, message):
    for file in (folders / "decoded").iterdir():
        file.unlink()
    if size:
        Image.new("RGB", size).save(folders / "decoded" / "small.png")
    with pytest.raises(InvalidArgumentError, match=message):
        kid.of_folders(folders / "originals", folders / "decoded")
    result = CliRunner().invoke(kid.app, [str(folders / "originals"), str(folders / "decoded")])
    assert result.exit_code == 2
