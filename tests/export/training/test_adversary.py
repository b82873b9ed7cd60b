"""The adversary: what its losses are at their ends, and how far its opinion counts."""

import pytest
import torch

from dlf.export.training.adversary import CHANNELS, Discriminator, balance, critic_loss, deceive_loss


def test_the_critic_learns_to_tell_noise_from_flat_grey() -> None:
    torch.manual_seed(0)
    critic = Discriminator()
    optimiser = torch.optim.Adam(critic.parameters(), 0.003)
    taps = [torch.rand(2, c, 4, 4) for c in CHANNELS]
    losses = []
    for _ in range(60):
        real = critic(torch.randn(2, 3, 32, 32), taps)
        fake = critic(torch.zeros(2, 3, 32, 32), taps)
        loss = critic_loss(real[-1:], fake[-1:])
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[0] == pytest.approx(2, abs=0.3)
    assert losses[-1] < 0.5


def test_losses_at_their_ends() -> None:
    sure, wrong = [torch.full((1, 1, 2, 2), 3.0)], [torch.full((1, 1, 2, 2), -3.0)]
    assert float(critic_loss(sure, wrong)) == 0
    assert float(critic_loss(wrong, sure)) == pytest.approx(8)
    assert float(deceive_loss(sure)) == -3


def test_balance_weighs_by_norm_whatever_the_scale() -> None:
    main, other, share = torch.randn(2, 3, 4, 4), 1000 * torch.randn(2, 3, 4, 4), torch.tensor([0.5, 0.1])
    added = balance(main, other, share) - main
    assert (added.flatten(1).norm(dim=1) / main.flatten(1).norm(dim=1)).tolist() == pytest.approx([0.5, 0.1], rel=1e-4)
    torch.testing.assert_close(balance(main, torch.zeros_like(main), share), main)
