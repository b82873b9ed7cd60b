import bjontegaard
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlf.benchmarks import bdrate
from dlf.benchmarks.bdrate import bd_rate
from dlf.benchmarks.records import Coding, ImageResult, ModelResult

# Two smooth curves of (bpp, dB) that overlap in part.
ANCHOR = [(0.10, 28.0), (0.20, 30.6), (0.40, 33.1), (0.80, 35.5)]
TEST = [(0.09, 28.4), (0.17, 30.9), (0.33, 33.5), (0.70, 35.9)]


def by_cubic(anchor, test):
    """The delta as Bjontegaard defined it (VCEG-M33): cubics of the logarithm of the rate over quality, integrated."""
    (ra, qa), (rt, qt) = (np.array(curve).T for curve in (anchor, test))
    low, high = max(qa.min(), qt.min()), min(qa.max(), qt.max())
    areas = [np.diff(np.polyval(np.polyint(np.polyfit(q, np.log(r), 3)), [low, high]))[0] for r, q in ((ra, qa), (rt, qt))]
    return 100 * (np.exp((areas[1] - areas[0]) / (high - low)) - 1)


def test_agrees_with_the_cubic_definition():
    assert bd_rate(ANCHOR, TEST, lower_is_better=False) == pytest.approx(by_cubic(ANCHOR, TEST), abs=0.3)
    assert by_cubic(ANCHOR, TEST) < -15


@pytest.mark.parametrize("method", ["akima", "pchip", "cubic"])
def test_agrees_with_the_packages_methods(method):
    (ra, qa), (rt, qt) = (tuple(zip(*curve, strict=True)) for curve in (ANCHOR, TEST))
    expected = bjontegaard.bd_rate(ra, qa, rt, qt, method=method)
    found = bd_rate(ANCHOR[::-1], TEST[2:] + TEST[:2], lower_is_better=False)  # in any order
    assert found == pytest.approx(expected, abs=1e-9 if method == "akima" else 0.3)


@given(st.floats(0.2, 5))
def test_rates_times_a_factor_are_that_factor(factor):
    scaled = [(rate * factor, quality) for rate, quality in ANCHOR]
    assert bd_rate(ANCHOR, scaled, lower_is_better=False) == pytest.approx(100 * (factor - 1), abs=1e-6)


def test_where_lower_is_better_the_sign_is_the_same():
    down = [[(rate, 1 - quality / 100) for rate, quality in curve] for curve in (ANCHOR, TEST)]
    assert bd_rate(*down, lower_is_better=True) == pytest.approx(bd_rate(ANCHOR, TEST, lower_is_better=False))


@pytest.mark.parametrize(
    "test",
    [
        TEST[:3],
        [*TEST[:3], TEST[0]],
        [(rate, quality + 20) for rate, quality in TEST],
        [(rate, -quality) for rate, quality in TEST],
    ],
    ids=["too few rates", "a rate twice", "no overlap", "quality falls with the rate"],
)
def test_is_undefined_rather_than_wrong(test):
    assert bd_rate(ANCHOR, test, lower_is_better=False) is None


def model(point, curve=(), images=2):
    """A model at a (bpp, dB), with a rival's curve: means of images that lie around them."""
    found = [
        ImageResult(
            str(i),
            "",
            1,
            1,
            {},
            0,
            [Coding("dlf", 1, point[0] + shift / 100, {"PSNR": point[1] + shift})],
            [Coding("avif", 1, bpp + shift / 100, {"PSNR": db + shift}, f"quality {q}") for q, (bpp, db) in enumerate(curve)],
        )
        for i, shift in enumerate(np.linspace(-1, 1, images))
    ]
    return ModelResult("m", "m", "", "", "", "", "", {}, found, [])


def test_models_of_several_rates_make_a_curve_against_the_rivals():
    models = [model(TEST[0], curve=ANCHOR), *map(model, TEST[1:])]
    (found,) = bdrate.between(models, ["PSNR"])
    assert (found.metric, found.test, found.anchor) == ("PSNR", "dlf", "avif")
    assert found.percent == pytest.approx(bd_rate(ANCHOR, TEST, lower_is_better=False))
    assert bdrate.between(models[:3], ["PSNR"]) == []


def test_what_is_not_defined_is_said():
    models = [model(TEST[0], curve=ANCHOR), *map(model, [TEST[2], TEST[2], TEST[3]])]
    (found,) = bdrate.between(models, ["PSNR"])
    assert found.percent is None
    assert "not defined" in str(found)


def test_models_on_different_images_are_not_compared():
    models = [model(TEST[0], curve=ANCHOR), *map(model, TEST[1:])]
    assert bdrate.between([*models[:3], model(TEST[3], images=1)], ["PSNR"]) == []
    assert bdrate.between([model(TEST[0], images=0)] * 4, ["PSNR"]) == []
