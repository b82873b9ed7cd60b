"""The reference file: what it stores, the errors computed with it, and what is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
from helpers.bundle import CHANNELS, DIM, seal
from hypothesis import given
from hypothesis import strategies as st

import dlf
from dlf.runtime.backends import Arrays
from dlf.runtime.bundles import references
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.bundles.references import NAME, References

SHAPES = {
    "analysis": {"z": (1, 1, 2, DIM, 32), "y": (1, CHANNELS, 8, 16)},
    "synthesis": {"semantic": (1, 5, 16, 32), "detail": (1, 3, 16, 32)},
    "adaptor": {"latent": (1, 6, 16, 32)},
    "generator": {"image": (1, 3, 256, 512)},
}


class MadeUpStages:
    """Stages that give random numbers; records their inputs and outputs."""

    def __init__(self) -> None:
        self.inputs: dict[str, Arrays] = {}
        self.outputs: dict[str, Arrays] = {}

    def __call__(self, stage: str, inputs: Arrays) -> Arrays:
        rng = np.random.default_rng(len(stage))
        self.inputs[stage] = inputs
        self.outputs[stage] = {name: rng.normal(size=s).astype(np.float32) for name, s in SHAPES[stage].items()}
        return self.outputs[stage]


@pytest.fixture(scope="module")
def stages() -> MadeUpStages:
    return MadeUpStages()


@pytest.fixture(scope="module")
def content(toy_bundle: Path, stages: MadeUpStages) -> bytes:
    return references.make(Bundle(toy_bundle).entropy, stages)


@pytest.fixture
def stored(content: bytes, tmp_path: Path) -> References:
    (tmp_path / NAME).write_bytes(content)
    return references.read(tmp_path / NAME)


def test_picture_is_what_the_format_says():
    picture = references.picture()
    assert (picture.shape, picture.dtype) == ((256, 512, 3), np.uint8)
    for row, column in ((0, 0), (3, 2), (255, 511), (100, 301), (17, 480)):
        assert tuple(picture[row, column]) == ((row + column) // 4 % 256, row * column // 128 % 256, (row ^ column) % 256)


def test_stages_are_given_again_what_they_were_given(stored, stages, toy_bundle):
    entropy = Bundle(toy_bundle).entropy
    for stage, inputs in stages.inputs.items():
        again = stored.inputs(stage, entropy)
        assert set(again) == set(inputs)
        for name, values in inputs.items():
            assert again[name].dtype == np.float32
            assert np.array_equal(again[name], values)


def test_synthesis_is_given_what_the_analysis_found(stages, toy_bundle):
    entropy = Bundle(toy_bundle).entropy
    z, y = (stages.outputs["analysis"][name] for name in "zy")
    assert np.array_equal(stages.inputs["synthesis"]["y_hat"][0], entropy.encode_detail_with_reconstruction(y[0])[1])
    z_hat = stages.inputs["synthesis"]["z_hat"].reshape(2, DIM, 32)
    assert np.array_equal(z_hat, entropy.vq_embed(entropy.vq_lookup(z.reshape(2, DIM, 32))))


def test_activations_are_thinned_to_every_fourth_row_and_column(stages):
    for stage, before in (("adaptor", "synthesis"), ("generator", "adaptor")):
        for name, values in stages.inputs[stage].items():
            real = stages.outputs[before][name]
            for row, column in ((0, 0), (3, 3), (4, 7), (15, 31)):
                expected = real[:, :, row // 4 * 4, column // 4 * 4]
                assert np.allclose(values[:, :, row, column], expected, rtol=2**-11)


def test_same_outputs_have_no_error(stored, stages):
    for stage, outputs in stages.outputs.items():
        assert stored.errors(stage, outputs) == dict.fromkeys(SHAPES[stage], 0.0)


@pytest.mark.parametrize("stage", SHAPES)
def test_error_is_relative(stored, stages, stage):
    scaled = {name: values * np.float32(1.03) for name, values in stages.outputs[stage].items()}
    assert stored.errors(stage, scaled) == pytest.approx(dict.fromkeys(SHAPES[stage], 0.03), rel=1e-4)


def test_what_cannot_be_compared_has_an_infinite_error(stored, stages):
    image = stages.outputs["generator"]["image"]
    not_finite = image.copy()
    not_finite[0, 1, 77, 88] = np.nan
    for outputs in ({}, {"image": image.transpose(0, 1, 3, 2)}, {"image": image[:, :, :-1]}, {"image": not_finite}):
        assert stored.errors("generator", outputs) == {"image": float("inf")}


def test_shuffled_outputs_have_an_error(stored, stages):
    image = stages.outputs["generator"]["image"]
    assert stored.errors("generator", {"image": np.roll(image, 1, axis=3)})["image"] > 0.5


@given(st.integers(1, 2**26))
def test_positions_are_spread_evenly(size):
    positions = np.sort(references._positions(size))
    assert len(positions) == min(size, references.SAMPLES)
    assert positions[0] >= 0 and positions[-1] < size
    gaps = np.diff(positions, prepend=-1, append=size)
    assert gaps.max() <= 1 + 3 * size / len(positions)


def test_bundle_without_references_has_none(toy_bundle):
    assert Bundle(toy_bundle).references() is None


def _without(content: bytes, key: str) -> bytes:
    with np.load(io.BytesIO(content)) as file:
        arrays = {name: values for name, values in file.items() if name != key}
    again = io.BytesIO()
    np.savez(again, **arrays)
    return again.getvalue()


def _with_pickle(content: bytes) -> bytes:
    again = io.BytesIO()
    np.savez(again, dlf=np.array([{}], dtype=object))
    return again.getvalue()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"not an archive",
        lambda content: content[:-100],
        lambda content: content[:200] + bytes(200) + content[400:],
        lambda content: _without(content, "dlf"),
        lambda content: _without(content, "analysis.z.shape"),
        _with_pickle,
    ],
)
def test_broken_file_is_refused(bundle_copy, content, spoil):
    (bundle_copy / NAME).write_bytes(spoil(content))
    seal(bundle_copy)
    with pytest.raises(dlf.BundleBrokenError, match="reference outputs"):
        Bundle(bundle_copy).references()


def test_changed_file_is_refused(bundle_copy, content):
    (bundle_copy / NAME).write_bytes(content)
    seal(bundle_copy)
    (bundle_copy / NAME).write_bytes(content[:-1] + b"x")
    with pytest.raises(dlf.BundleBrokenError, match="SHA-256"):
        Bundle(bundle_copy).references()
