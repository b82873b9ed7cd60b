"""The encoder that trains the pixel generator in the first stage, and the targets of the second. It is never shipped."""

import torch.nn.functional as F
from torch import Tensor, nn

from dlf.export.model import Config


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))
        return out


class TrainingEncoder(nn.Module):
    """Image to logits over the VQGAN's codebook, at 1/16 of the resolution."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 64, 4, stride=4),
            _Residual(64),
            nn.Conv2d(64, 96, 2, stride=2),
            _Residual(96),
            nn.Conv2d(96, 128, 2, stride=2),
            _Residual(128),
            _Residual(128),
            nn.GroupNorm(8, 128),
            nn.SiLU(),
            nn.Conv2d(128, config.vqgan_codebook_size, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(n, 3, 256h, 256w), -1 to 1, to (n, vqgan_codebook_size, 16h, 16w)."""
        logits: Tensor = self.net(image)
        return logits.float()
