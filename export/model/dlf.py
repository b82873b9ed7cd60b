"""The whole model, divided as in the codec: analysis | VQ, SQ and their entropy coding | synthesis, adaptor, generator."""

import torch
from torch import Tensor, nn

from dlf.export.model.config import Config
from dlf.export.model.decoder import Decoder
from dlf.export.model.encoder import Encoder
from dlf.export.model.latent_adaptor import LatentAdaptor
from dlf.export.model.pixel_generator import PixelGenerator
from dlf.export.model.scalar_quantiser import ScalarQuantiser
from dlf.export.model.vector_quantiser import Codebook, VectorQuantiser
from dlf.runtime.formats import TOKENS_PER_TILE


class HybridCodec(nn.Module):
    """Both branches with their quantisers."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.latent_tokens = nn.Parameter(config.vit_width**-0.5 * torch.randn(TOKENS_PER_TILE, config.vit_width))
        self.encoder = Encoder(config)
        self.quantize = VectorQuantiser(config.codebook_size, config.codebook_dim)
        self.quantize_feat = ScalarQuantiser(config)
        self.decoder = Decoder(config)


class VQGAN(nn.Module):
    """The decoding half of a VQGAN."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.quantize = Codebook(config.vqgan_codebook_size, config.vqgan_codebook_dim)
        self.post_quant_conv = nn.Conv2d(config.vqgan_codebook_dim, config.vqgan_codebook_dim, 1)
        self.decoder = PixelGenerator(config)


class DLF(nn.Module):
    """Dual-generative Latent Fusion; parameter names are those of the released checkpoint."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.hybrid_codec = HybridCodec(config)
        self.prior_fusion = LatentAdaptor(config)
        self.vqgan = VQGAN(config)

    def analysis(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image (n, 3, 256h, 256w), -1 to 1, to z (n, h, w, codebook_dim, 32) and y (n, detail_channels, 8h, 8w)."""
        z, feature = self.hybrid_codec.encoder(image, self.hybrid_codec.latent_tokens)
        return z, self.hybrid_codec.quantize_feat.analyse(feature)

    def synthesis(self, z_hat: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised latents to the semantic (n, vit_width, 16h, 16w) and detail map (n, detail_width, 16h, 16w)."""
        semantic, detail = self.hybrid_codec.decoder(z_hat, self.hybrid_codec.quantize_feat.synthesise(y_hat))
        return semantic, detail

    def adaptor(self, semantic: Tensor, detail: Tensor) -> Tensor:
        """Both maps to the VQGAN's latent (n, vqgan_codebook_dim, 16h, 16w)."""
        return self.vqgan.quantize(self.prior_fusion(semantic, detail))

    def generator(self, latent: Tensor) -> Tensor:
        """The VQGAN's latent to the image (n, 3, 256h, 256w), -1 to 1."""
        return self.generator_with_base(latent)[0]

    def generator_with_base(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and the map that enters the generator's upper levels, see `PixelGenerator.base`."""
        base = self.vqgan.decoder.base(self.vqgan.post_quant_conv(latent))
        image = self.vqgan.decoder.upper(base)
        return image.clamp(-1, 1), base
