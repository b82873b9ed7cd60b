"""Muon for matrices and kernels, AdamW for the rest; the learning rate by the clock; the moving average of the weights."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
# Newton-Schulz coefficients of Keller Jordan's Muon (2024): singular values go to about 1 in five steps.
_A, _B, _C = 3.4445, -4.7750, 2.0315
NEWTON_STEPS = 5
MATCH_ADAM = 0.2  # root mean square of an update, as AdamW's (Liu et al., 2025)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices (n, rows, columns) with their singular values brought near 1."""
    x = matrices
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NEWTON_STEPS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised (Jordan, 2024); kernels are taken as (outputs, everything else)."""

    def __init__(self, params: Iterable[nn.Parameter], weight_decay: float) -> None:
        super().__init__(params, {"lr": 0.0, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update each parameter; those of one shape together."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault((p.shape[0], p.numel() // p.shape[0]), []).append(p)
            for shape, params in by_shape.items():
                updates = orthogonalise(torch.stack([self._momentum(p).reshape(shape) for p in params]))
                scale = group["lr"] * MATCH_ADAM * math.sqrt(max(shape))
                for p, update in zip(params, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.reshape(p.shape), alpha=-scale)

    def _momentum(self, p: nn.Parameter) -> Tensor:
        assert p.grad is not None
        buffer: Tensor = self.state[p].setdefault("momentum", torch.zeros_like(p))
        buffer.lerp_(p.grad, 1 - MOMENTUM)
        return p.grad.lerp(buffer, MOMENTUM)


class Optimiser:
    """Both optimisers as one, with gradient clipping."""

    def __init__(self, module: nn.Module, lr: float, weight_decay: float) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, p in module.named_parameters():
            table = any(word in name for word in ("embed", "token", "prior_vec"))
            matrix = p.ndim >= 2 and min(p.shape[0], p.numel() // p.shape[0]) >= 8 and not table
            # The convolutions that meet pixels, the last logits and the depthwise kernels do better with Adam.
            ends = ("conv_out" in name and p.shape[0] == 3) or (p.ndim == 4 and p.shape[1] == 1)
            (matrices if matrix and not ends else others).append(p)
        self.lr = lr
        self.params = [*matrices, *others]
        self.muon = Muon(matrices, weight_decay)
        self.adam = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, factor: float, clip: float) -> float:
        """One update at `factor` times the peak learning rate, skipped if the gradient is not finite; returns its norm."""
        norm = float(nn.utils.clip_grad_norm_(self.params, clip))
        if math.isfinite(norm):
            for optimiser in (self.muon, self.adam):
                for group in optimiser.param_groups:
                    group["lr"] = self.lr * factor
                optimiser.step()
        for p in self.params:
            p.grad = None
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


def schedule(progress: float, warm_up: float) -> float:
    """Learning rate at a share of the stage's time: linear warm-up, then half a cosine to 0."""
    if progress < warm_up:
        return progress / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up)))


@torch.no_grad()
def average(shadow: dict[str, Tensor], module: nn.Module, step: int, decay: float) -> None:
    """Move a shadow of the module's state towards it; faster in the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, tensor in module.state_dict().items():
        shadow[name].lerp_(tensor, 1 - decay)
