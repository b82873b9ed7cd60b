import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlf.benchmarks.records import Coding, ImageResult, ModelResult, Report, Speed, Timing, percentile


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.floats(0, 100))
def test_percentile_is_numpys(values, percent):
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent), rel=1e-9, abs=1e-9)


def image(psnr=30.0) -> ImageResult:
    codings = [Coding("dlf", 100, 0.1, {"PSNR": psnr}), Coding("avif", 400, 0.4, {"PSNR": 20.0}, "quality 0", True)]
    return ImageResult("a.png", "00", 80, 100, {"header": 100}, 0.5, codings)


def model(*images) -> ModelResult:
    return ModelResult("m", "m", "", "", "openvino", "CPU", "fp32", {}, list(images), [])


def test_an_image_comes_back_from_json():
    assert ImageResult.from_json(json.loads(json.dumps(asdict(image())))) == image()


def test_means_are_over_the_images_of_a_codec():
    found = model(image(30), image(34))
    assert found.codecs() == ["dlf", "avif"]
    assert found.at_minimum == {"avif"}
    assert found.means("dlf") == {"bytes": 100, "bpp": pytest.approx(0.1), "PSNR": 32}


def test_a_report_is_strict_json_with_null_for_what_is_not_finite():
    report = Report("now", "dlf-bench", "photos", ["PSNR"], {}, [model(image(float("inf")))])
    text = json.dumps(report.to_json(), allow_nan=False)
    (found,) = json.loads(text)["models"]
    assert found["images"][0]["codings"][0]["quality"] == {"PSNR": None}
    assert found["means"]["avif"]["PSNR"] == 20


def test_the_ratio_is_of_medians():
    timings = [
        Timing(peer, direction, batch, 9, [batch * seconds for seconds in warm], {}, 0, {})
        for batch in (1, 4)
        for direction in ("encode", "decode")
        for peer, warm in (("openvino", [1.0, 2.0, 9.0]), ("torch", [5.0, 6.0, 7.0] if direction == "encode" else [1.0]))
    ]
    speed = Speed("a.png", 80, 100, 1, timings)
    assert (speed.peers, speed.baselines) == (["openvino", "torch"], ["torch"])
    assert [speed.ratio(timing) for timing in timings if timing.peer == "torch"] == [3, 0.5, 3, 0.5]
    assert speed.alone == timings[:4]
    assert (timings[0].p50, timings[0].p95) == (2, pytest.approx(8.3))


def test_throughput_counts_the_images_of_a_batch():
    timing = Timing("openvino", "encode", 3, 9, [5.0, 6.0, 7.0], {}, 0, {})
    assert timing.images_per_second == 0.5
    assert Speed("a.png", 1000, 2000, 1, [timing]).megapixels_per_second(timing) == 1
