"""The metrics, compared with published values and a second implementation; their properties."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("pytorch_msssim")

from dlf.benchmarks.metrics import DISTS, Metrics, psnr
from dlf.export.perceptual import weights
from dlf.export.perceptual.lpips import LPIPS
from dlf.export.training.data import to_tensor

EXAMPLES = Path(os.environ.get("DLF_DATA", Path(__file__).parents[3] / "shared" / "data"), "lpips_examples")


@pytest.fixture(scope="module")
def networks() -> None:
    """The weights, fetched once for a machine."""
    try:
        for name in weights.SOURCES:
            weights.load(name)
    except Exception as error:
        pytest.skip(f"the metrics' weights cannot be fetched: {error}")


def noise(seed: int, strength: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture and the same with noise, (192, 208, 3) uint8."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (12, 13, 3), np.uint8))
    picture = np.asarray(small.resize((208, 192), Image.Resampling.BICUBIC))
    noisy = (picture + rng.normal(0, strength, picture.shape)).clip(0, 255).astype(np.uint8)
    return picture, noisy


def test_psnr_of_a_known_error() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black) == math.inf
    assert psnr(black, np.full_like(black, 255)) == 0
    assert psnr(black, np.full_like(black, 1)) == pytest.approx(48.1308, abs=1e-4)  # of one level, a textbook's figure


@pytest.mark.usefixtures("networks")
def test_lpips_gives_the_authors_values() -> None:
    if not EXAMPLES.is_dir():
        pytest.skip(f"{EXAMPLES} is not at hand")
    reference, far, near = (
        to_tensor([np.asarray(Image.open(EXAMPLES / f"ex_{n}.png").convert("RGB"))]) for n in ("ref", "p0", "p1")
    )
    lpips = LPIPS("alexnet")
    assert float(lpips(reference, far)) == pytest.approx(0.722, abs=5e-4)
    assert float(lpips(reference, near)) == pytest.approx(0.138, abs=5e-4)


@pytest.mark.usefixtures("networks")
def test_equal_images_are_at_no_distance_and_noise_adds_some() -> None:
    compare = Metrics()
    picture, noisy = noise(0)
    equal, near, far = compare(picture, picture), compare(picture, noisy), compare(picture, noise(0, 80.0)[1])
    for name in ("LPIPS-Alex", "LPIPS-VGG", "DISTS"):
        assert equal[name] == pytest.approx(0, abs=1e-5)
        assert 0.01 < near[name] < far[name]
    assert equal["MS-SSIM"] == pytest.approx(1, abs=1e-5)
    assert equal["MS-SSIM"] > near["MS-SSIM"] > far["MS-SSIM"]


@pytest.mark.usefixtures("networks")
def test_dists_is_its_published_formula() -> None:
    """The sums of DISTS (equations 2 to 5 of the paper) spelled out channel by channel on the network's maps."""
    metric = DISTS()
    x, y = (to_tensor([picture]) for picture in noise(1))
    learned = weights.load("dists")
    alpha, beta = (learned[name].flatten().double() for name in ("alpha", "beta"))
    similarity, channel = 0.0, 0
    for a, b in zip(metric._maps(x), metric._maps(y), strict=True):
        for i in range(a.shape[1]):
            p, q = a[0, i].double().flatten(), b[0, i].double().flatten()
            covariance = torch.cov(torch.stack([p, q]), correction=0)
            luminance = (2 * p.mean() * q.mean() + 1e-6) / (p.mean() ** 2 + q.mean() ** 2 + 1e-6)
            structure = (2 * covariance[0, 1] + 1e-6) / (covariance[0, 0] + covariance[1, 1] + 1e-6)
            similarity += float(alpha[channel] * luminance + beta[channel] * structure)
            channel += 1
    assert channel == len(alpha)
    assert float(metric(x, y)) == pytest.approx(1 - similarity / float(alpha.sum() + beta.sum()), abs=1e-4)
