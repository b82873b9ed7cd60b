"""The constants of the formats are the same in Python and in libdlf."""

import re
from pathlib import Path

import pytest

from dlf.runtime import formats

HEADER = (Path(__file__).parents[2] / "runtime" / "native" / "src" / "support" / "formats.h").read_text()


@pytest.mark.parametrize(
    ("python", "native"),
    [
        ("BUNDLE_FORMAT", "kBundleFormat"),
        ("BUNDLE_VERSION", "kBundleVersion"),
        ("TILE", "kTileSide"),
        ("TOKENS_PER_TILE", "kTokensPerTile"),
        ("DETAIL_PER_TILE", "kDetailPerTile"),
        ("LARGE_BATCH", "kLargeBatch"),
        ("LARGEST_KEPT_STAGE", "kLargestKeptStage"),
    ],
)
def test_constant_is_libdlfs(python, native):
    (value,) = re.findall(rf"\b{native} = (.*?);", HEADER)
    assert str(getattr(formats, python)) == value.strip('"')


@pytest.mark.parametrize(("python", "native"), [("ENCODER_STAGES", "kEncoderStage"), ("DECODER_STAGES", "kDecoderStages")])
def test_stages_are_libdlfs(python, native):
    (value,) = re.findall(rf"\b{native} = (.*?);", HEADER)
    assert getattr(formats, python) == tuple(re.findall(r'"(\w+)"', value))
