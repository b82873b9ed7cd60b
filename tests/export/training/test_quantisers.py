"""Quantisation in training, compared with the codec's: the same symbols, the rate of the coded bytes, and gradients."""

import math
from dataclasses import replace

import pytest
import torch

from dlf.export.model import DLF, MINI, scalar_quantiser
from dlf.export.model.scalar_quantiser import ScalarQuantiser
from dlf.export.model.vector_quantiser import VectorQuantiser
from dlf.export.training.quantisers import (
    MIN_SCALE,
    gaussian_bits,
    lower_bound,
    quantise_detail,
    quantise_semantic,
    revive,
    round_through,
)

CONFIG = replace(MINI, vit_layers=1, encoder_insertions=(0,), decoder_insertions=(0,), adaptor_width=64, vit_width=64)


@pytest.fixture
def quantiser() -> ScalarQuantiser:
    """Untrained, but with scales that are all large enough to be coded."""
    torch.manual_seed(3)
    quantiser = DLF(CONFIG).hybrid_codec.quantize_feat
    channels = CONFIG.detail_channels
    with torch.no_grad():
        quantiser.y_prior_fusion[1].block[1].conv_out.bias[:channels] += 1
        quantiser.y_prior_fusion[1].block[1].conv_out.bias[channels : 2 * channels] += 7
        quantiser.y_spatial_prior[2].block[1].conv_out.bias[:channels] += 7
    return quantiser


def test_detail_is_what_the_codec_reconstructs(quantiser: ScalarQuantiser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scalar_quantiser, "SKIP_SCALE", 0.0)
    y = 2 * torch.randn(2, CONFIG.detail_channels, 8, 16)
    coded = quantiser.quantise(y)
    assert all((scale > 0).all() for scale in coded.scales), "the check needs a prior that skips nothing"
    torch.testing.assert_close(quantise_detail(quantiser, y).y_hat, coded.y_hat)


def test_rate_is_that_of_a_discretised_gaussian(quantiser: ScalarQuantiser) -> None:
    y = 2 * torch.randn(1, CONFIG.detail_channels, 8, 8)
    with torch.no_grad():
        coded = quantiser.quantise(y)
    expected = 0.0
    for symbols, scales in zip(coded.symbols, coded.scales, strict=True):
        normal = torch.distributions.Normal(0.0, scales.double().clamp(min=MIN_SCALE))
        expected += float(-torch.log2(normal.cdf(symbols + 0.5) - normal.cdf(symbols - 0.5)).clamp(max=16).sum())
    assert float(quantise_detail(quantiser, y).bits) == pytest.approx(expected, rel=1e-3)


def test_gradients_reach_the_latent_and_the_prior(quantiser: ScalarQuantiser) -> None:
    y = (2 * torch.randn(1, CONFIG.detail_channels, 8, 8)).requires_grad_()
    detail = quantise_detail(quantiser, y)
    (detail.bits + detail.y_hat.square().sum()).backward()
    assert y.grad is not None and float(y.grad.abs().sum()) > 0
    for name in ("factorized_prior_vec", "y_spatial_prior_adaptor_3.block.0.conv1.0.weight"):
        grad = quantiser.get_parameter(name).grad
        assert grad is not None and float(grad.abs().sum()) > 0, name


def test_bits_of_a_certain_symbol_are_none_and_of_a_fair_coin_one() -> None:
    # A bin edge at the mean halves the Gaussian, whatever lies beyond the other edge.
    bits = gaussian_bits(torch.tensor([0.0, 0.5]), torch.tensor([0.11, 0.11]))
    torch.testing.assert_close(bits, torch.tensor([0.0, 1.0]), atol=1e-4, rtol=0)


def test_lower_bound_lets_a_value_rise_but_not_sink() -> None:
    for sign, passes in ((-1.0, True), (1.0, False)):  # the sign of the gradient; descent goes against it
        x = torch.tensor([0.0], requires_grad=True)
        (sign * lower_bound(x, 0.11)).sum().backward()
        assert x.grad is not None and bool(x.grad != 0) is passes


def test_round_through_has_the_gradient_of_the_identity() -> None:
    x = torch.tensor([0.4, 1.6], requires_grad=True)
    rounded = round_through(x)
    rounded.sum().backward()
    assert rounded.tolist() == [0.0, 2.0]
    assert x.grad is not None and x.grad.tolist() == [1.0, 1.0]


def test_semantic_tokens_are_the_nearest_entries() -> None:
    torch.manual_seed(0)
    quantiser, z = VectorQuantiser(16, 12), torch.randn(2, 3, 12, 32)
    semantic = quantise_semantic(quantiser, z)
    angles = torch.nn.functional.cosine_similarity(z[..., None], quantiser.unit_vectors.T[None, None, :, None], dim=2)
    assert torch.equal(semantic.indices, angles.argmax(-1))
    torch.testing.assert_close(semantic.z_hat, quantiser.embed(semantic.indices))
    assert float(semantic.loss.detach()) > 0


def test_dead_entries_move_onto_latents() -> None:
    torch.manual_seed(0)
    quantiser, z = VectorQuantiser(8, 12), torch.randn(1, 1, 12, 32)
    usage = torch.tensor([0.0, 0.5, 0.5, 0, 0, 0, 0, 0])
    before = quantiser.embedding.weight.detach().clone()
    assert revive(quantiser, usage, z, threshold=0.05) == 6
    assert torch.equal(before[1:3], quantiser.embedding.weight[1:3])
    nearest = (quantiser.unit_vectors[[0, 3, 4, 5, 6, 7]] @ torch.nn.functional.normalize(z[0, 0], dim=0)).max(1).values
    torch.testing.assert_close(nearest, torch.ones(6))
    assert math.isclose(float(usage[0]), 1 / 8)
