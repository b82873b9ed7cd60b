"""The latent adaptor: fuses the semantic and the detail map into logits over the VQGAN's codebook."""

import torch
from torch import Tensor, nn

from dlf.export.model.config import Config
from dlf.export.model.swin import SwinRun


class LatentAdaptor(nn.Module):
    """Both decoded maps to logits."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        vit, detail, width = config.vit_width, config.detail_width, config.adaptor_width
        self.titok_in = nn.ModuleDict({"1": SwinRun(vit, 2, first=0)})
        self.feat_in = nn.ModuleDict({"1": SwinRun(detail, 2, first=0)})
        self.merge = nn.Sequential(
            nn.Linear(vit + detail, 2 * vit),
            nn.LayerNorm(2 * vit),
            nn.SiLU(),
            nn.Linear(2 * vit, width),
            SwinRun(width, 4, first=0),
        )
        self.ffn = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, config.vqgan_codebook_size)
        )

    def forward(self, semantic: Tensor, detail: Tensor) -> Tensor:
        """Fuse (n, vit_width, 16h, 16w) and (n, detail_width, 16h, 16w) into logits (n, vqgan_codebook_size, 16h, 16w)."""
        semantic = self.titok_in["1"](semantic.permute(0, 2, 3, 1))
        detail = self.feat_in["1"](detail.permute(0, 2, 3, 1))
        logits: Tensor = self.ffn(self.merge(torch.cat([semantic, detail], -1)))
        return logits.permute(0, 3, 1, 2)
