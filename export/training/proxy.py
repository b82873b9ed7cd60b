"""Codes of places, which the tokens learn first; and a semantic branch whose tokens begin at their places.

Tokens that are trained together with all else become the same for every tile: nothing ties a token to what it should tell, the
less so as the encoder takes the memory of its 32 tokens for that of the transposed matrix. So each token is first told its word:
token t describes cell t of a tile that is cut into 4 by 8 cells. One-dimensional tokenizers are warmed up likewise (Yu et al.,
2024, TiTok), but with another tokenizer's codes; these are of plain colours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlf.export.model import DLF, Config
from dlf.export.model.attention import TransformerBlock
from dlf.export.model.config import GRID, PATCH
from dlf.export.model.interactive_transform import InteractiveTransform
from dlf.runtime.formats import TILE, TOKENS_PER_TILE

ROWS, COLUMNS = 4, 8  # of cells in a tile
FEATURES = 3 * TOKENS_PER_TILE // 4 + 1  # of a cell: three colours of its eight patches, and its grain


def opponent(rgb: Tensor) -> Tensor:
    """Brightness, blue against yellow and red against green of RGB; (n, 3, height, width)."""
    red, green, blue = rgb.unbind(1)
    return torch.stack([(red + green + blue) / 3, blue - (red + green) / 2, red - green], 1)


def describe(image: Tensor) -> Tensor:
    """The features of each cell, (n, h, w, FEATURES, 32), of images (n, 3, 256h, 256w), -1 to 1."""
    n, _, height, width = image.shape
    colours = opponent(image)
    brightness = colours[:, :1]
    grain = (brightness - F.avg_pool2d(brightness, 9, 1, 4)).square()
    shape = (n, -1, height // TILE, ROWS, GRID // ROWS, width // TILE, COLUMNS, GRID // COLUMNS)
    patches = F.avg_pool2d(colours, PATCH).reshape(shape).permute(0, 2, 5, 1, 4, 7, 3, 6).flatten(3, 5).flatten(4)
    cells = F.avg_pool2d(grain, PATCH).reshape(shape).mean((4, 7)).permute(0, 2, 4, 1, 3, 5).flatten(4)
    return torch.cat([patches, (cells + 1e-4).log() / 4], 3)


class Proxy(nn.Module):
    """Unit vectors that stand for the features of cells: their principal components, and a constant that keeps their length."""

    mean: Tensor
    basis: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("basis", torch.zeros(dim - 1, FEATURES))

    def fit(self, images: Tensor) -> None:
        """Take the components of the cells of tiles (n, 3, 256, 256); together they have variance 1."""
        points = describe(images).mT.flatten(0, 3)
        self.mean.copy_(points.mean(0))
        values, vectors = torch.linalg.eigh((points - self.mean).mT.cov())
        chosen = slice(-len(self.basis), None)
        self.basis.copy_(vectors.mT[chosen] * values[chosen].sum().rsqrt())

    def forward(self, image: Tensor) -> Tensor:
        """Codes (n, h, w, dim, 32) of images (n, 3, 256h, 256w)."""
        code = self.basis @ (describe(image) - self.mean[:, None])
        return F.normalize(torch.cat([code, torch.ones_like(code[..., :1, :])], 3), dim=3)


def waves(rows: Tensor, columns: Tensor, width: int) -> Tensor:
    """Unit vectors (n, width) of places 0..1, whose product falls with their distance; coarse waves first."""
    count = width // 4
    k = torch.arange(1, count + 1) * torch.pi / 2 * GRID / count
    phase = torch.stack([rows[:, None] * k, columns[:, None] * k], 2)
    return torch.cat([phase.sin(), phase.cos()], 2).flatten(1) / (2 * count) ** 0.5


@torch.no_grad()
def restart_semantic(model: DLF, images: Tensor) -> None:
    """Start both sides' semantic branches again: attention begins by place, and interactive transforms pass them on as they are.

    `images` (n, 3, 256, 256) tell how strong the content is beside which places have to be heard.
    """
    config: Config = model.config
    fresh = DLF(config).hybrid_codec
    centres = torch.arange(GRID).add(0.5) / GRID
    patches = waves(centres.repeat_interleave(GRID), centres.repeat(GRID), config.vit_width)
    rows, columns = (torch.arange(n).add(0.5) / n for n in (ROWS, COLUMNS))
    cells = waves(rows.repeat_interleave(COLUMNS), columns.repeat(ROWS), config.vit_width)
    codec = model.hybrid_codec
    content = codec.encoder.patch_embed(images * 0.5 + 0.5).std() * config.vit_width**0.5
    for side, new, strength in ((codec.encoder, fresh.encoder, 2 * content), (codec.decoder, fresh.decoder, 2.0)):
        for name in ("transformer", "ln_pre", "ln_post"):
            getattr(side, name).load_state_dict(getattr(new, name).state_dict())
        side.positional_embedding[1:] = strength * patches
        side.latent_token_positional_embedding.copy_(strength * cells)
        for layer in side.transformer:
            assert isinstance(layer, TransformerBlock)
            eye = torch.eye(config.vit_width)
            layer.attn.in_proj_weight.copy_(torch.cat([eye, eye, layer.attn.in_proj_weight[2 * config.vit_width :]]))
            layer.attn.in_proj_bias.zero_()
        for block in side.inter_blocks.children():
            assert isinstance(block, InteractiveTransform)
            for p in block.zero_add.parameters():
                p.zero_()
    codec.latent_tokens.mul_(0.1)
    codec.encoder.conv_out.load_state_dict(fresh.encoder.conv_out.state_dict())
    codec.decoder.mask_token.zero_()
    codec.decoder.decoder_embed.load_state_dict(fresh.decoder.decoder_embed.state_dict())
