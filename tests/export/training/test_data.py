"""Crops of photographs, each another picture."""

import numpy as np

from dlf.export.training.data import GAMMA, TINT, Photographs, tint

GREYS = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)


def test_a_tint_keeps_black_white_and_the_order_of_values() -> None:
    for seed in range(20):
        tinted = tint(np.random.default_rng(seed), GREYS)
        assert tinted.shape == GREYS.shape and tinted.dtype == np.uint8
        channels = tinted.reshape(256, 3).astype(int)
        assert (channels[[0, 255]] == [[0, 0, 0], [255, 255, 255]]).all() and (np.diff(channels, axis=0) >= 0).all()


def test_a_tint_moves_no_value_further_than_its_powers_allow() -> None:
    values = np.arange(256) / 255
    lightest, darkest = (values ** np.exp(sign * (GAMMA + TINT)) for sign in (-1, 1))
    drawn = np.stack([tint(np.random.default_rng(seed), GREYS).reshape(256, 3).T for seed in range(50)]) / 255
    assert (drawn <= lightest + 1 / 255).all() and (drawn >= darkest - 1 / 255).all()
    assert drawn.std(axis=(0, 1)).max() > 0.03 and abs(drawn[:, 0] - drawn[:, 1]).max() > 0.02


def test_a_crop_stretched_beyond_its_photograph_takes_all_of_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    photographs = Photographs(np.concatenate([image, image]).reshape(-1), np.array([[256, 256]] * 2), held_out=2)
    crops = photographs.crops(np.random.default_rng(1), 8, 1, 1)
    assert crops.shape == (8, 3, 256, 256) and float(crops.min()) >= -1 and float(crops.max()) <= 1
