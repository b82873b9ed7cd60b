"""Constants of the formats that several modules use, see docs/format.md. `formats.h` has the same for libdlf."""

SIGNATURE = b"\xdf"  # the first byte of a .dlf file
BUNDLE_FORMAT = "dlf-bundle"
BUNDLE_VERSION = 1

TILE = 256  # pixels a side of a tile; images are padded to whole tiles
TOKENS_PER_TILE = 32
DETAIL_PER_TILE = 8  # positions a side of the detail latent that one tile has

# Pixels of the images that are coded together, padded to tiles. After so many, stages on the CPU are not kept: libraries keep the
# memory of a run, by far the most that is held, and to load a stage again takes a tenth of the time at most.
LARGE_BATCH = 1 << 20
# Bytes of the files of a stage that is kept compiled for the next process. Larger ones run so long that compiling them hardly
# shows; where one is for a single run, it is compiled for the shapes of that run alone, in which it takes less memory.
LARGEST_KEPT_STAGE = 32 << 20

# A bundle's stages, in the order in which they run.
ENCODER_STAGES = ("analysis",)
DECODER_STAGES = ("synthesis", "adaptor", "generator")
STAGES = ENCODER_STAGES + DECODER_STAGES

# The part of the generator that ends where libdlf goes on, and the name of what it gives.
GENERATOR_BASE, BASE = "generator_base", "base"


def tiles(height: int, width: int) -> tuple[int, int]:
    """Return how many tiles, down and across, cover an image of `height` x `width` pixels."""
    return -(-height // TILE), -(-width // TILE)
