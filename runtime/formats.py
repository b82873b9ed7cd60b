"""Facts of the formats that several modules share: see docs/format.md. `formats.h` is the same for libdlf."""

BUNDLE_FORMAT = "dlf-bundle"
BUNDLE_VERSION = 1

TILE = 256  # pixels a side of a tile; images are padded to whole tiles
TOKENS_PER_TILE = 32
DETAIL_PER_TILE = 8  # positions a side of the detail latent that one tile has

# A bundle's stages, in the order in which they run.
ENCODER_STAGES = ("analysis",)
DECODER_STAGES = ("synthesis", "adaptor", "generator")
STAGES = ENCODER_STAGES + DECODER_STAGES


def tiles(height: int, width: int) -> tuple[int, int]:
    """The tiles down and across that cover an image of `height` x `width` pixels."""
    return -(-height // TILE), -(-width // TILE)
