"""Decoding a file up to the neural stages."""

from hashlib import sha256

from dlf.runtime.formats import tiles
from dlf.runtime.libdlf import EntropyModel, FileInfo, Limits, parse_file

LIMITS = Limits(1 << 18, 1 << 12)


def decode(model: EntropyModel, data: bytes, limits: Limits = LIMITS) -> tuple[FileInfo, str]:
    """The header of a file, and a hash of its latents z_hat and y_hat. Raises what libdlf refuses."""
    file = parse_file(data, limits)
    tokens, detail = model.read_file(data, file)
    z_hat = model.vq_embed(tokens)
    down, across = tiles(file.height, file.width)
    y_hat = model.decode_detail(detail, 8 * down, 8 * across)
    return file, sha256(z_hat.tobytes() + y_hat.tobytes()).hexdigest()
