"""Codes of places, and a semantic branch that begins at its places."""

from dataclasses import replace

import pytest
import torch
from tests.export.training.test_train import TINY

from dlf.export.model import DLF
from dlf.export.training.proxy import COLUMNS, ROWS, Proxy, describe, restart_semantic, waves

TILES = 2 * torch.rand(8, 3, 256, 256, generator=torch.Generator().manual_seed(0)) - 1


def test_a_token_describes_its_cell_and_no_other() -> None:
    image = torch.zeros(1, 3, 512, 768)
    plain = describe(image)
    row, column = 2, 5  # of the cells in the tile (1, 2)
    top, left = 256 + row * 256 // ROWS, 512 + column * 256 // COLUMNS
    image[:, 0, top : top + 256 // ROWS, left : left + 256 // COLUMNS] = 0.5
    changed = (describe(image) - plain).abs()
    assert changed.shape == (1, 2, 3, 25, 32)
    colours, own = changed[0, :, :, :24], row * COLUMNS + column
    assert (colours > 0.01).any(2).nonzero().tolist() == [[1, 2, own]]
    assert colours[1, 2, :, own].reshape(3, 8)[:, 0].tolist() == pytest.approx([0.5 / 3, 0.25, 0.5])


def test_codes_are_unit_vectors_that_tell_apart_what_differs() -> None:
    proxy = Proxy(6)
    proxy.fit(TILES)
    codes = proxy(TILES)
    assert codes.shape == (8, 1, 1, 6, 32)
    torch.testing.assert_close(codes.norm(dim=3), torch.ones(8, 1, 1, 32))
    assert float((proxy(TILES[:1]) * proxy(torch.full((1, 3, 256, 256), 0.5))).sum(3).mean()) < 0.8


def test_waves_of_places_are_alike_where_the_places_are() -> None:
    at = torch.linspace(0, 1, 9)
    alike = waves(at, torch.zeros(9), 64) @ waves(at[4:5], torch.zeros(1), 64).T
    assert float(alike[4]) == pytest.approx(1)
    assert alike[[3, 5], 0].max() < 0.95
    assert int(alike.argmax()) == 4


@torch.no_grad()
def test_a_semantic_branch_that_starts_again_looks_at_its_places_first() -> None:
    """The mean colour of a cell has to reach the tokens of that cell before those of others."""
    torch.manual_seed(0)
    model = DLF(replace(TINY, vit_width=128))
    restart_semantic(model, TILES)
    for block in model.hybrid_codec.decoder.inter_blocks.values():
        assert float(block.zero_add.weight.abs().max()) == 0
    embedded = model.hybrid_codec.decoder
    before = torch.zeros(1, 1, 1, TINY.codebook_dim, 32)
    before[..., 0, :] = 1
    after = before.clone()
    token = 2 * COLUMNS + 5
    after[..., token] = -after[..., token]
    y_hat = model.hybrid_codec.quantize_feat.synthesise(torch.zeros(1, TINY.detail_channels, 8, 8))
    moved = (embedded(before, y_hat)[0] - embedded(after, y_hat)[0]).norm(dim=1)[0]
    own = moved[8:12, 10:12].mean()
    assert own > 3 * moved.mean()
