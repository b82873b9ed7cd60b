"""What a model without a part does and does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.export.training.test_train import TINY

from dlf.export.checkpoint import GROUPS_KEY, load_checkpoint
from dlf.export.integer_prior import entropy_tables
from dlf.export.training import ablation
from dlf.export.training.ablation import BOOK, ENTRIES, PARTS, Part, VectorDetail, ablated
from dlf.export.training.quantisers import quantise_detail
from dlf.runtime.errors import CheckpointError
from dlf.runtime.libdlf import EntropyModel

STREAM_OF_NOTHING = 4  # bytes, the coder's final state


@torch.no_grad()
def test_without_detail_nothing_is_coded() -> None:
    torch.manual_seed(0)
    model = ablated(TINY, Part.DETAIL)
    assert ablation.load_into(model, ablated(TINY, None).state_dict(), Part.DETAIL) == []
    _, y = model.analysis(torch.rand(1, 3, 256, 512) * 2 - 1)
    coded = model.hybrid_codec.quantize_feat.quantise(y)
    assert not any(scales.any() or symbols.any() for scales, symbols in zip(coded.scales, coded.symbols, strict=True))
    assert not coded.y_hat.any() and not y.any()
    entropy = EntropyModel(entropy_tables(model).to_bytes())
    assert len(entropy.encode_detail(y[0].numpy())) == STREAM_OF_NOTHING


@torch.no_grad()
@pytest.mark.parametrize("part", [None, Part.INTERACTIVE])
def test_without_interactive_transforms_the_branches_hear_nothing_of_each_other(part: Part | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ablated(ablation.without(TINY, part), part)
    z, y_hat = torch.randn(2, 1, 1, TINY.codebook_dim, 32), torch.randn(2, TINY.detail_channels, 8, 8)
    semantic, detail = model.synthesis(z, y_hat)
    apart = torch.equal(model.synthesis(z.flip(0), y_hat)[1], detail) and torch.equal(
        model.synthesis(z, y_hat.flip(0))[0], semantic
    )
    assert apart == (part is Part.INTERACTIVE)
    save_file(model.state_dict(), tmp_path / "model.safetensors", {GROUPS_KEY: "2"})
    assert load_checkpoint(tmp_path / "model.safetensors").config == model.config


def test_vectors_are_the_nearest_entries() -> None:
    torch.manual_seed(0)
    quantiser = VectorDetail(replace(TINY, detail_channels=16))
    y = torch.randn(2, 16, 8, 16)
    detail = quantise_detail(quantiser, y)
    assert float(detail.bits) == 2 * 8 * 16 * PARTS * np.log2(ENTRIES)
    book, error = quantiser.book.detach().double().numpy(), 0.0
    for part in range(PARTS):
        here = slice(4 * part, 4 * part + 4)
        vectors = y[:, here].double().numpy().transpose(0, 2, 3, 1)
        nearest = book[np.square(vectors[..., None, :] - book).sum(-1).argmin(-1)]
        np.testing.assert_allclose(detail.y_hat[:, here].detach().permute(0, 2, 3, 1), nearest, atol=1e-6)
        error += np.square(vectors - nearest).mean() / PARTS
    assert detail.loss.item() == pytest.approx(1.25 * error, rel=1e-5)


def test_a_codebook_begins_at_the_means_of_its_latents() -> None:
    torch.manual_seed(0)
    quantiser = VectorDetail(TINY)
    y = torch.randn(40, TINY.detail_channels, 8, 8)
    before = quantise_detail(quantiser, y).loss.item()
    quantiser.start(y)
    after = quantise_detail(quantiser, y)
    # In two dimensions the entries of k-means lie as in a grid: 256 of them leave some 1/100 of the variance of 1.
    assert 1.25 * 0.005 < after.loss.item() < 1.25 * 0.02 < before


def test_a_model_without_scalar_quantisation_is_no_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ablated(TINY, Part.SCALAR)
    save_file(model.state_dict(), tmp_path / "model.safetensors", {GROUPS_KEY: "2"})
    with pytest.raises(CheckpointError, match=BOOK):
        load_checkpoint(tmp_path / "model.safetensors")
    for name, tensor in ablation.load(tmp_path / "model.safetensors").state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
