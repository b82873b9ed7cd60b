"""The encoder: a ViT over the patches of each tile, a detail branch over the whole map, and the transforms that join them."""

import torch
from torch import Tensor, nn

from dlf.export.model.attention import TransformerBlock
from dlf.export.model.config import GRID, PATCH, Config
from dlf.export.model.interactive_transform import DetailBlocks, InteractiveTransform
from dlf.export.model.partition import partition
from dlf.export.model.swin import SwinRun
from dlf.runtime.formats import TOKENS_PER_TILE


class Encoder(nn.Module):
    """Image to semantic latent and detail feature."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, detail = config.vit_width, config.detail_width
        self.patch_embed = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(1, width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(1 + GRID * GRID, width))
        self.latent_token_positional_embedding = nn.Parameter(width**-0.5 * torch.randn(TOKENS_PER_TILE, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.ModuleList(TransformerBlock(width) for _ in range(config.vit_layers))
        self.ln_post = nn.LayerNorm(width)
        self.conv_out = nn.Conv2d(width, config.codebook_dim, 1)
        self.pix_emb_proj = nn.Conv2d(width, detail, 1)
        self.feat_in = SwinRun(detail, 4, first=1)
        self.inter_blocks = nn.ModuleDict(
            {str(i): InteractiveTransform(width, detail, config.insertion_depth) for i in config.encoder_insertions}
        )
        self.feat_blocks = nn.ModuleDict({str(i): DetailBlocks(detail) for i in config.encoder_insertions})
        self.feat_out = nn.ModuleDict(
            {
                "0": SwinRun(detail, 2, first=1),
                "1": nn.Conv2d(detail, detail, 2, stride=2),
                "3": nn.LayerNorm(detail),
                "4": nn.Linear(detail, detail),
            }
        )

    def forward(self, image: Tensor, latent_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a padded image.

        Args:
            image: (n, 3, 256h, 256w), -1 to 1.
            latent_tokens: (32, vit_width), the learned queries.

        Returns:
            z (n, h, w, codebook_dim, 32) and the detail feature (n, detail_width, 8h, 8w).
        """
        patches = self.patch_embed(image * 0.5 + 0.5)
        detail = self.feat_in(self.pix_emb_proj(patches).permute(0, 2, 3, 1))

        patches = partition(patches.permute(0, 2, 3, 1))
        tiles = patches.shape[0]
        s = torch.cat([self.class_embedding.expand(tiles, 1, -1), patches], 1) + self.positional_embedding
        latents = (latent_tokens + self.latent_token_positional_embedding).expand(tiles, -1, -1)
        s = self.ln_pre(torch.cat([s, latents], 1))

        for i, layer in enumerate(self.transformer):
            s = layer(s)
            if str(i) in self.inter_blocks:
                detail, s = self.inter_blocks[str(i)](detail, s)
                detail = self.feat_blocks[str(i)](detail)

        n, height, width, _ = detail.shape
        z = self.read_tokens(s).reshape(n, height // GRID, width // GRID, -1, TOKENS_PER_TILE)

        detail = self.feat_out["1"](self.feat_out["0"](detail).permute(0, 3, 1, 2))
        detail = self.feat_out["4"](self.feat_out["3"](detail.permute(0, 2, 3, 1)))
        return z, detail.permute(0, 3, 1, 2)

    def read_tokens(self, s: Tensor) -> Tensor:
        """The semantic latent (tiles, codebook_dim, 32) that the last layer's output (tiles, 289, vit_width) holds."""
        z = self.ln_post(s[:, -TOKENS_PER_TILE:])
        # The authors read the memory of (32, width) as (width, 32): no transposition.
        latent: Tensor = self.conv_out(z.reshape(s.shape[0], -1, TOKENS_PER_TILE, 1))[..., 0]
        return latent
