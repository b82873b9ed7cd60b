"""The one description of a DLF model: widths, depths and where the branches meet."""

from dataclasses import dataclass

from dlf.runtime.formats import TILE

# Constants of the architecture, the same in every configuration.
PATCH = 16  # pixels a side of a ViT patch
GRID = TILE // PATCH  # patches a side of a tile
HEAD_WIDTH = 64  # of every attention head but the pixel generator's
SKIP_SCALE = 0.12  # symbols of a smaller scale are not coded


@dataclass(frozen=True)
class Config:
    """Sizes of a DLF model. Heads are `width / 64` everywhere but in the pixel generator."""

    vit_width: int
    vit_layers: int  # in the encoder and in the decoder
    codebook_size: int
    codebook_dim: int
    detail_width: int
    detail_channels: int  # of the detail latent, a multiple of 4
    encoder_insertions: tuple[int, ...]  # layers that an interactive transform follows
    decoder_insertions: tuple[int, ...]
    insertion_depth: int  # attention blocks in one interactive transform
    adaptor_width: int
    vqgan_codebook_size: int
    vqgan_codebook_dim: int
    vqgan_width: int
    vqgan_multipliers: tuple[int, ...]  # of vqgan_width, from full resolution to 1/16
    vqgan_blocks: int = 2  # ResNet blocks a level, less one
    vqgan_groups: int = 32  # of its GroupNorms

    @property
    def generator_width(self) -> int:
        """The pixel generator's width at its lowest resolution."""
        return self.vqgan_width * self.vqgan_multipliers[-1]

    def __post_init__(self) -> None:
        if self.vit_width % HEAD_WIDTH or self.detail_width % HEAD_WIDTH or self.adaptor_width % HEAD_WIDTH:
            found = f"{self.vit_width}, {self.detail_width} and {self.adaptor_width}"
            raise ValueError(f"vit_width, detail_width and adaptor_width, {found}, must be multiples of {HEAD_WIDTH}")
        if self.detail_channels % 4:
            raise ValueError(f"detail_channels, {self.detail_channels}, must be a multiple of 4")
        widths = [self.vqgan_width * multiplier for multiplier in self.vqgan_multipliers]
        if any(width % self.vqgan_groups for width in widths):
            raise ValueError(f"the pixel generator's widths, {widths}, must be multiples of its {self.vqgan_groups} groups")
        if 2 ** (len(self.vqgan_multipliers) - 1) != PATCH:
            raise ValueError(f"vqgan_multipliers must have {PATCH.bit_length()} entries, not {len(self.vqgan_multipliers)}")


RELEASED = Config(
    vit_width=1024,
    vit_layers=24,
    codebook_size=4096,
    codebook_dim=12,
    detail_width=768,
    detail_channels=64,
    encoder_insertions=(3, 7, 11, 15, 19),
    decoder_insertions=(3, 7, 11, 15, 19),
    insertion_depth=2,
    adaptor_width=1024,
    vqgan_codebook_size=256,
    vqgan_codebook_dim=256,
    vqgan_width=128,
    vqgan_multipliers=(1, 1, 2, 2, 4),
)

MINI = Config(
    vit_width=512,
    vit_layers=8,
    codebook_size=512,
    codebook_dim=12,
    detail_width=64,
    detail_channels=16,
    encoder_insertions=(1, 3),
    decoder_insertions=(0, 2),
    insertion_depth=1,
    adaptor_width=1024,
    vqgan_codebook_size=64,
    vqgan_codebook_dim=32,
    vqgan_width=32,
    vqgan_multipliers=(1, 1, 2, 2, 4),
)
