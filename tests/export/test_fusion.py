"""The replaced modules of exported graphs compute the same as the model's original ones."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers.export import TINY, tiny_model
from torch import nn

from dlf.export.fusion import _transposed, fused


@torch.no_grad()
def test_the_whole_stays_the_same_and_comes_back() -> None:
    model = tiny_model().double()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 256, 512, generator=generator, dtype=torch.float64) * 2 - 1
    latent = torch.randn(2, TINY.vqgan_codebook_dim, 16, 32, generator=generator, dtype=torch.float64)
    written = [(name, type(module)) for name, module in model.named_modules()]
    expected = (*model.analysis(image), model.generator(latent))
    with fused(model):
        changed = {name for name, module in model.named_modules() if (name, type(module)) not in written}
        found = (*model.analysis(image), model.generator(latent))
    for a, e in zip(found, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-9)
    assert {"vqgan.decoder.up.1.upsample", "hybrid_codec.encoder.transformer.1"} <= changed
    assert [(name, type(module)) for name, module in model.named_modules()] == written


def test_comes_back_after_a_failure() -> None:
    model = tiny_model()
    written = [(name, type(module)) for name, module in model.named_modules()]
    with pytest.raises(ValueError, match="while fused"), fused(model):
        raise ValueError("while fused")
    assert [(name, type(module)) for name, module in model.named_modules()] == written


def test_the_last_layer_stays_whole_where_an_interactive_transform_follows_it() -> None:
    model = tiny_model(replace(TINY, encoder_insertions=(0, 1)))
    layer = model.hybrid_codec.encoder.transformer[1]
    with fused(model):
        assert model.hybrid_codec.encoder.transformer[1] is layer


@torch.no_grad()
def test_transposed_convolution_upsamples_to_the_border() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, padding=1).double()
    x = torch.randn(2, 3, 4, 7, dtype=torch.float64)
    torch.testing.assert_close(
        _transposed(conv)(x), conv(F.interpolate(x, scale_factor=2.0, mode="nearest")), rtol=1e-12, atol=1e-12
    )
