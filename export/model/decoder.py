"""The decoder: mirror of the encoder, from both quantised latents to a semantic and a detail map."""

import torch
from torch import Tensor, nn

from dlf.export.model.attention import TransformerBlock
from dlf.export.model.config import GRID, Config
from dlf.export.model.interactive_transform import DetailBlocks, InteractiveTransform
from dlf.export.model.partition import unpartition
from dlf.export.model.swin import SwinRun
from dlf.runtime.formats import TOKENS_PER_TILE


class Decoder(nn.Module):
    """Both latents to the maps that the latent adaptor fuses."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, detail = config.vit_width, config.detail_width
        self.decoder_embed = nn.Linear(config.codebook_dim, width)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(1, width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(1 + GRID * GRID, width))
        self.mask_token = nn.Parameter(width**-0.5 * torch.randn(1, 1, width))
        self.latent_token_positional_embedding = nn.Parameter(width**-0.5 * torch.randn(TOKENS_PER_TILE, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.ModuleList(TransformerBlock(width) for _ in range(config.vit_layers))
        self.ln_post = nn.LayerNorm(width)
        self.init_feat_up = nn.Sequential(nn.Conv2d(detail, 4 * detail, 1), nn.PixelShuffle(2), SwinRun(detail, 4, first=1))
        self.inter_blocks = nn.ModuleDict(
            {str(i): InteractiveTransform(width, detail, config.insertion_depth) for i in config.decoder_insertions}
        )
        self.feat_blocks = nn.ModuleDict({str(i): DetailBlocks(detail) for i in config.decoder_insertions})

    def forward(self, z_hat: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Decode both latents.

        Args:
            z_hat: (n, h, w, codebook_dim, 32), unit vectors.
            feature: (n, detail_width, 8h, 8w), from the scalar quantiser's decoder side.

        Returns:
            Semantic map (n, vit_width, 16h, 16w) and detail map (n, detail_width, 16h, 16w).
        """
        conv, shuffle, swin = self.init_feat_up
        detail = swin(shuffle(conv(feature)).permute(0, 2, 3, 1))
        _, height, width, _ = detail.shape

        latents = self.decoder_embed(z_hat.flatten(0, 2).transpose(1, 2)) + self.latent_token_positional_embedding
        tiles = latents.shape[0]
        mask_tokens = self.mask_token[0].expand(GRID * GRID, -1)
        s = torch.cat([self.class_embedding, mask_tokens]) + self.positional_embedding
        s = self.ln_pre(torch.cat([s.expand(tiles, -1, -1), latents], 1))

        for i, layer in enumerate(self.transformer):
            s = layer(s)
            if str(i) in self.inter_blocks:
                detail, s = self.inter_blocks[str(i)](detail, s)
                detail = self.feat_blocks[str(i)](detail)

        semantic = unpartition(self.ln_post(s[:, 1 : 1 + GRID * GRID]), height, width)
        return semantic.permute(0, 3, 1, 2), detail.permute(0, 3, 1, 2)
