"""Decoding a file up to the neural stages."""

from hashlib import sha256

from dlf.runtime.formats import tiles
from dlf.runtime.libdlf import EntropyModel, FileInfo, Limits, detail_stream, parse_file, unpack_tokens

LIMITS = Limits(1 << 18, 1 << 12)


def decode(model: EntropyModel, data: bytes, limits: Limits = LIMITS) -> tuple[FileInfo, str]:
    """The header of a file, and a hash of its latents z_hat and y_hat. Raises what libdlf refuses."""
    file = parse_file(data, limits)
    z_hat = model.vq_embed(unpack_tokens(data, file))
    down, across = tiles(file.height, file.width)
    y_hat = model.decode_detail(detail_stream(data, file), 8 * down, 8 * across)
    return file, sha256(z_hat.tobytes() + y_hat.tobytes()).hexdigest()
