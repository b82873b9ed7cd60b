"""Hybrids, and the tiles from which the decoder learns."""

import torch
from tests.export.training.test_train import TINY

from dlf.export.training.hybrid import Taught, coarse, hybrids
from dlf.export.training.proxy import describe
from dlf.export.training.stages import Coded, Nets

BATCH = torch.rand(3, 3, 256, 512, generator=torch.Generator().manual_seed(0)) - 0.5


def test_a_hybrid_has_the_colours_of_another_and_its_own_fine_structure() -> None:
    colours = torch.tensor([0.2, -0.1, 0.3]).reshape(3, 1, 1, 1) * torch.ones(3, 3, 256, 512)
    grain = 0.1 * (-1.0) ** torch.arange(512) * torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1)
    torch.testing.assert_close(hybrids(colours + grain), colours.roll(1, 0) + grain)


def test_what_tokens_tell_of_a_hybrid_is_the_other_picture() -> None:
    """Coarse colours are those that the codes of cells tell apart, on pictures of such colours alone."""
    smooth = coarse(3 * coarse(BATCH))
    mixed = describe(hybrids(smooth + 0.05 * torch.randn(BATCH.shape, generator=torch.Generator().manual_seed(1))))
    own, other = (describe(x) for x in (smooth, smooth.roll(1, 0)))
    colours = slice(0, 24)
    distances = [float((mixed - x)[..., colours, :].norm()) for x in (own, other)]
    assert distances[1] < 0.5 * distances[0]


def test_a_single_picture_and_a_pair_stay_in_range() -> None:
    single = BATCH[:1]
    torch.testing.assert_close(hybrids(single), single)
    black_and_white = torch.stack([-torch.ones(3, 256, 256), torch.ones(3, 256, 256)])
    assert hybrids(black_and_white + 0.5 * BATCH[:2, :, :, :256]).abs().max() <= 1


@torch.no_grad()
def test_the_detail_of_a_hybrid_comes_with_the_tokens_of_the_picture_itself() -> None:
    torch.manual_seed(0)
    nets, images = Nets(TINY), BATCH[:, :, :, :256]
    keep = torch.zeros(3, dtype=torch.bool)
    plain, mixed, all_mixed = (
        Coded(nets.model, *args)
        for args in (
            (images, 0.25, keep),
            (images, 0.25, keep, None, torch.tensor([True, False, False])),
            (hybrids(images), 0.25, keep),
        )
    )
    torch.testing.assert_close(mixed.z, plain.z)
    torch.testing.assert_close(mixed.y[0], all_mixed.y[0])
    torch.testing.assert_close(mixed.y[1:], plain.y[1:])
    assert not torch.allclose(mixed.y[0], plain.y[0])


@torch.no_grad()
def test_what_is_taught_is_what_the_teacher_makes_of_whole_tiles() -> None:
    torch.manual_seed(0)
    nets, images = Nets(TINY), BATCH[:, :, :, :256]
    parts = [nets.teach(images), nets.teach(images.flip(0))]
    z_hat, y_hat, y_hat_hybrid, logits = Taught.join(parts).batch(torch.tensor([4, 0]))
    taught = nets.teacher.prior_fusion(*nets.teacher.synthesis(z_hat, y_hat))
    torch.testing.assert_close(logits, taught, atol=2e-3, rtol=2e-3)
    assert y_hat_hybrid.shape == y_hat.shape == (2, TINY.detail_channels, 8, 8)
    assert not torch.equal(y_hat_hybrid[1], y_hat[1])


def test_the_decoder_stage_starts_the_semantic_side_of_the_adaptor_again_and_nothing_else() -> None:
    torch.manual_seed(0)
    nets = Nets(TINY)
    before = {name: tensor.clone() for name, tensor in nets.model.state_dict().items()}
    nets.start_decoder()
    moved = {name for name, tensor in nets.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[1] for name in moved} == {"titok_in", "merge"}
    merge = nets.model.prior_fusion.merge[0].weight
    assert isinstance(merge, torch.Tensor)
    torch.testing.assert_close(merge[:, TINY.vit_width :], before["prior_fusion.merge.0.weight"][:, TINY.vit_width :])
    for name, tensor in nets.teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name
