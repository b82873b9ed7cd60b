"""The native entropy core (libdlf) in Python: container, tokens, and the entropy model of a bundle.

Everything here goes through `dlf.h`, the header that C programs use. Arrays are NumPy's; H and W are those of the detail map
(8 for each 256-pixel tile). Refusals are raised as the classes of `dlf.runtime.errors`; messages do not name a file, since
none is known here.
"""

import ctypes
import hashlib
import math
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from dlf.runtime import errors
from dlf.runtime.formats import FILE_VERSION, TOKENS_PER_TILE, tiles


@dataclass(frozen=True)
class Limits:
    """The largest image that a decoder accepts: width * height, and the longer side, in pixels."""

    max_pixels: int = 1 << 26
    max_side: int = 1 << 14


@dataclass(frozen=True)
class FileInfo:
    """The header of a .dlf file, and how many bytes its parts take; they follow each other in the order given here."""

    width: int
    height: int
    version: int
    fingerprint: int  # of the model, 16 bits
    token_bits: int
    has_checksum: bool
    tiles: int
    header_bytes: int
    token_bytes: int
    detail_bytes: int
    checksum_bytes: int


class _Limits(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("max_pixels", ctypes.c_uint64),
        ("max_side", ctypes.c_uint32),
    )


class _FileInfo(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        *(
            (name, ctypes.c_uint32)
            for name in ("width", "height", "version", "fingerprint", "token_bits", "has_checksum", "tiles")
        ),
        *((name, ctypes.c_size_t) for name in ("header_bytes", "token_bytes", "detail_bytes", "checksum_bytes")),
    )


class _EntropyInfo(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        *((name, ctypes.c_uint32) for name in ("channels", "codebook_size", "codebook_dim", "token_bits", "cdfs")),
        ("isa", ctypes.c_char_p),
    )


def library_path() -> Path:
    """Where the installed libdlf.so is. Raises FileNotFoundError if the package is not installed."""
    return _installed("lib/libdlf.so")


def include_path() -> Path:
    """The folder of the installed dlf.h. Raises FileNotFoundError if the package is not installed."""
    return _installed("include/dlf.h").parent


def _installed(name: str) -> Path:
    # An editable install keeps Python files in the source tree and built files elsewhere, so __file__ does not lead there;
    # the distribution's list of files does.
    try:
        files = metadata.files("dlf") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix() == f"dlf/runtime/{name}":
            return Path(str(file.locate()))
    raise FileNotFoundError(f"dlf/runtime/{name} is not installed; install the package: pip install .")


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(library_path()))
    pointer, size, uint32 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32
    out, out_size = ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t)
    signatures: dict[str, tuple[Any, Sequence[Any]]] = {
        "dlf_version": (ctypes.c_char_p, ()),
        "dlf_result_string": (ctypes.c_char_p, (ctypes.c_int,)),
        "dlf_free": (None, (pointer,)),
        "dlf_file_parse": (ctypes.c_int, (ctypes.c_char_p, size, ctypes.POINTER(_Limits), ctypes.POINTER(_FileInfo))),
        "dlf_file_write": (ctypes.c_int, (ctypes.POINTER(_FileInfo), pointer, ctypes.c_char_p, size, out, out_size)),
        "dlf_tokens_unpack": (ctypes.c_int, (ctypes.c_char_p, size, uint32, pointer)),
        "dlf_entropy_open": (ctypes.c_int, (ctypes.c_char_p, size, out)),
        "dlf_entropy_free": (None, (pointer,)),
        "dlf_entropy_get_info": (None, (pointer, ctypes.POINTER(_EntropyInfo))),
        "dlf_vq_lookup": (ctypes.c_int, (pointer, pointer, size, pointer)),
        "dlf_vq_embed": (ctypes.c_int, (pointer, pointer, size, pointer)),
        "dlf_detail_encode": (ctypes.c_int, (pointer, pointer, uint32, uint32, pointer, out, out_size)),
        "dlf_detail_decode": (ctypes.c_int, (pointer, ctypes.c_char_p, size, uint32, uint32, pointer)),
        "dlf_rans_encode": (ctypes.c_int, (pointer, pointer, pointer, size, out, out_size)),
        "dlf_rans_decode": (ctypes.c_int, (pointer, ctypes.c_char_p, size, pointer, size, pointer)),
        "dlf_rans_decoder_open": (ctypes.c_int, (pointer, ctypes.c_char_p, size, out)),
        "dlf_rans_decoder_get": (ctypes.c_int, (pointer, pointer, size, pointer)),
        "dlf_rans_decoder_finish": (ctypes.c_int, (pointer,)),
        "dlf_rans_decoder_free": (None, (pointer,)),
        "dlf_prior_step": (ctypes.c_int, (pointer, ctypes.c_int, pointer, uint32, uint32, pointer, pointer)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def version() -> str:
    """The library's version."""
    text: bytes = _library().dlf_version()
    return text.decode()


def _fail(result: int, message: str | None = None) -> NoReturn:
    raise errors.BY_CODE[result](message or _library().dlf_result_string(result).decode())


def _check(result: int, message: str | None = None) -> None:
    if result:
        _fail(result, message)


def _take(out: ctypes.c_void_p, size: ctypes.c_size_t) -> bytes:
    """The bytes of a buffer of the library, which is released."""
    try:
        return ctypes.string_at(out, size.value)
    finally:
        _library().dlf_free(out)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise errors.InvalidArgumentError(message)


# ---------------------------------------------------------------------------------------------------------- container


def parse_file(data: bytes | bytearray | memoryview, limits: Limits | None = None) -> FileInfo:
    """Read the header of a .dlf file and check what can be checked without a model.

    Raises NotDLFError, UnsupportedVersionError, TruncatedError, SizeLimitError, TokensMissingError, ChecksumError, and
    InvalidArgumentError for data that are no bytes.
    """
    if isinstance(data, (bytearray, memoryview)):
        data = bytes(data)
    _require(isinstance(data, bytes), f"a .dlf file is given as its bytes, not as {type(data).__name__}; read it first")
    limits = limits or Limits()
    raw = _FileInfo(struct_size=ctypes.sizeof(_FileInfo))
    # Limits above the C types' range are no limits: the format's own largest image is below both.
    native = _Limits(ctypes.sizeof(_Limits), min(limits.max_pixels, 2**64 - 1), min(limits.max_side, 2**32 - 1))
    result = _library().dlf_file_parse(data, len(data), native, raw)
    values = {name: getattr(raw, name) for name in FileInfo.__dataclass_fields__}
    info = FileInfo(**{**values, "has_checksum": bool(raw.has_checksum)})
    if result:
        _fail(result, _refusal(errors.BY_CODE[result], data, info, limits))
    return info


def _refusal(kind: type[errors.DLFError], data: bytes, info: FileInfo, limits: Limits) -> str | None:
    """What was found in a refused file, and what to do."""
    size = f"{info.width}x{info.height}"
    incomplete = "it is incomplete, so copy or download it again"
    if kind is errors.NotDLFError:
        if not info.version:
            return f"it starts with byte 0x{data[0]:02X}, not with 0xDF, so it is not a .dlf file"
        return "its header does not spell an image size, so it is damaged or not a .dlf file"
    if kind is errors.UnsupportedVersionError:
        return f"it is of .dlf version {info.version} and this dlf reads version {FILE_VERSION}; it needs another version of dlf"
    if kind is errors.TruncatedError:
        return f"it ends inside its header, after {len(data)} bytes; {incomplete}"
    if kind is errors.SizeLimitError:
        if max(info.width, info.height) > limits.max_side:
            return f"the image is {size} pixels, over the limit of {limits.max_side} a side; raise it with max_side"
        return f"the image is {size} pixels, over the limit of {limits.max_pixels} in all; raise it with max_pixels"
    if kind is errors.TokensMissingError:
        present = len(data) - info.header_bytes
        due = info.token_bytes + info.checksum_bytes
        return f"a {size} image takes at least {due} bytes after the header and there are {present}; {incomplete}"
    if kind is errors.ChecksumError:
        return "its checksum does not match its bytes; it is damaged or cut short, so copy or download it again"
    return None


def write_file(
    *,
    width: int,
    height: int,
    fingerprint: int,
    token_bits: int,
    tokens: NDArray[np.uint16],
    detail: bytes,
    checksum: bool = True,
) -> bytes:
    """Assemble a .dlf file of an image of `width` x `height` pixels.

    `tokens` is (tiles, 32) in tile order, each below 2^token_bits. Raises InvalidArgumentError.
    """
    for name, value, low, high in (
        ("width", width, 1, 1 << 21),
        ("height", height, 1, 1 << 21),
        ("fingerprint", fingerprint, 0, 0xFFFF),
        ("token_bits", token_bits, 1, 16),
    ):
        _require(low <= value <= high, f"{name} is {value}, not in {low}..{high}")
    shape = (math.prod(tiles(height, width)), TOKENS_PER_TILE)
    values = _array(tokens, np.uint16, "tokens", shape)
    _require(int(values.max()) >> token_bits == 0, f"a token is {values.max()}, too large for {token_bits} bits")
    info = _FileInfo(
        struct_size=ctypes.sizeof(_FileInfo),
        width=width,
        height=height,
        fingerprint=fingerprint,
        token_bits=token_bits,
        has_checksum=checksum,
    )
    out, size = ctypes.c_void_p(), ctypes.c_size_t()
    _check(_library().dlf_file_write(info, values.ctypes.data, detail, len(detail), out, size))
    return _take(out, size)


def unpack_tokens(data: bytes, info: FileInfo) -> NDArray[np.uint16]:
    """The tokens of a file that `parse_file` described as `info`: (tiles, 32), in tile order."""
    packed = data[info.header_bytes : info.header_bytes + info.token_bytes]
    _require(
        len(packed) == info.token_bytes, f"{len(packed)} bytes of tokens, not {info.token_bytes}: not the file that was parsed"
    )
    tokens = np.empty((info.tiles, TOKENS_PER_TILE), np.uint16)
    _check(_library().dlf_tokens_unpack(packed, tokens.size, info.token_bits, tokens.ctypes.data))
    return tokens


def detail_stream(data: bytes, info: FileInfo) -> bytes:
    """The detail stream of a file that `parse_file` described as `info`."""
    start = info.header_bytes + info.token_bytes
    return data[start : start + info.detail_bytes]


# ------------------------------------------------------------------------------------------------------ entropy model


class EntropyModel:
    """The entropy model of a bundle: VQ codebook, CDFs and the integer four-part prior. Immutable, usable from any thread.

    Attributes:
        channels: of the detail latent, C.
        codebook_size: number of entries.
        codebook_dim: length of an entry.
        token_bits: bits of a token in a file.
        cdfs: number of CDFs.
        isa: what the prior runs on, "scalar", "avx2", "avx512" or "neon". Results do not depend on it. The processor's best;
            the environment variable DLF_ISA forces one.
        fingerprint: 16 bits that a .dlf file carries, the first two bytes of the data's SHA-256; as in `f"{fingerprint:04x}"`.
    """

    def __init__(self, data: bytes) -> None:
        """Read the content of an `entropy.bin`.

        Raises BundleForeignError, BundleBrokenError, and InvalidArgumentError where DLF_ISA asks for what is not there.
        """
        self._handle = ctypes.c_void_p()
        result = _library().dlf_entropy_open(data, len(data), self._handle)
        if result == errors.InvalidArgumentError.code:
            isa = os.environ.get("DLF_ISA")
            _fail(result, f"this processor cannot run DLF_ISA={isa}; unset it, or set it to scalar, avx2, avx512 or neon")
        if result == errors.BundleForeignError.code:
            _fail(result, "it is not an entropy.bin of a version that this dlf reads; export the bundle again")
        _check(result, "it breaks the rules of entropy.bin, so it is damaged; export or copy the bundle again")
        weakref.finalize(self, _library().dlf_entropy_free, self._handle)
        info = _EntropyInfo(struct_size=ctypes.sizeof(_EntropyInfo))
        _library().dlf_entropy_get_info(self._handle, info)
        self.channels: int = info.channels
        self.codebook_size: int = info.codebook_size
        self.codebook_dim: int = info.codebook_dim
        self.token_bits: int = info.token_bits
        self.cdfs: int = info.cdfs
        self.isa: str = info.isa.decode()
        self.fingerprint = int.from_bytes(hashlib.sha256(data).digest()[:2], "big")

    def vq_lookup(self, z: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Tokens (tiles, 32) of a latent z (tiles, codebook_dim, 32): the nearest codebook entry in angle, the lowest of equals.

        Raises InvalidArgumentError if z has another shape or is not finite.
        """
        z = _array(z, np.float32, "z", (None, self.codebook_dim, TOKENS_PER_TILE))
        tokens = np.empty((len(z), TOKENS_PER_TILE), np.uint16)
        result = _library().dlf_vq_lookup(self._handle, z.ctypes.data, len(z), tokens.ctypes.data)
        _check(result, "z is not finite: the analysis stage gave NaN or infinity")
        return tokens

    def vq_embed(self, tokens: NDArray[np.uint16]) -> NDArray[np.float32]:
        """The unit vectors (tiles, codebook_dim, 32) of tokens (tiles, 32).

        Raises StreamCorruptError for a token that the codebook does not have.
        """
        tokens = _array(tokens, np.uint16, "tokens", (None, TOKENS_PER_TILE))
        z_hat = np.empty((len(tokens), self.codebook_dim, TOKENS_PER_TILE), np.float32)
        result = _library().dlf_vq_embed(self._handle, tokens.ctypes.data, len(tokens), z_hat.ctypes.data)
        _check(result, f"a token is outside the codebook of {self.codebook_size} entries; the file is damaged")
        return z_hat

    def encode_detail(self, y: NDArray[np.float32]) -> tuple[bytes, NDArray[np.float32]]:
        """Quantise and code a detail latent y (C, H, W): its stream, and y_hat (C, H, W) as the decoder will see it.

        Raises InvalidArgumentError if y has another shape or is not finite.
        """
        y = _array(y, np.float32, "y", (self.channels, None, None))
        _, height, width = y.shape
        _check_map(height, width)
        y_hat = np.empty_like(y)
        out, size = ctypes.c_void_p(), ctypes.c_size_t()
        result = _library().dlf_detail_encode(self._handle, y.ctypes.data, height, width, y_hat.ctypes.data, out, size)
        _check(result, "y is not finite: the analysis stage gave NaN or infinity" if result == 1 else None)
        return _take(out, size), y_hat

    def decode_detail(self, data: bytes, height: int, width: int) -> NDArray[np.float32]:
        """y_hat (C, height, width) of a detail stream.

        Raises TruncatedError, TrailingBytesError, StreamCorruptError.
        """
        _check_map(height, width)
        y_hat = np.empty((self.channels, height, width), np.float32)
        result = _library().dlf_detail_decode(self._handle, data, len(data), height, width, y_hat.ctypes.data)
        _check(result, _stream_refusal(result))
        return y_hat

    def rans_encode(self, symbols: NDArray[np.int32], indexes: NDArray[np.int16]) -> bytes:
        """The stream of symbols (at most 2^20 in size), each coded with the CDF of its index; index -1 is not coded.

        Raises InvalidArgumentError.
        """
        symbols = _array(symbols, np.int32, "symbols", (None,))
        indexes = _array(indexes, np.int16, "indexes", symbols.shape)
        out, size = ctypes.c_void_p(), ctypes.c_size_t()
        result = _library().dlf_rans_encode(self._handle, symbols.ctypes.data, indexes.ctypes.data, symbols.size, out, size)
        _check(result, f"a symbol is over 2^20 in size or an index not in -1..{self.cdfs - 1}" if result == 1 else None)
        return _take(out, size)

    def rans_decode(self, data: bytes, indexes: NDArray[np.int16]) -> NDArray[np.int32]:
        """The inverse of `rans_encode`; symbols of index -1 are 0.

        Raises InvalidArgumentError, TruncatedError, TrailingBytesError, StreamCorruptError.
        """
        indexes = _array(indexes, np.int16, "indexes", (None,))
        symbols = np.empty(indexes.shape, np.int32)
        result = _library().dlf_rans_decode(self._handle, data, len(data), indexes.ctypes.data, indexes.size, symbols.ctypes.data)
        _check(result, f"an index is not in -1..{self.cdfs - 1}" if result == 1 else _stream_refusal(result))
        return symbols

    def rans_decoder(self, data: bytes) -> "RansDecoder":
        """Begin to decode a stream piece by piece. Raises TruncatedError, StreamCorruptError."""
        return RansDecoder(self, data)

    def prior_step(self, step: int, r: NDArray[np.int32]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """CDF indexes (-1: not coded) and means (in 1/256), both (C, H, W), of step 0 to 3 of the four-part prior.

        `r` (C, H, W) is the reconstruction so far in 1/256, 0 where nothing is coded yet; at step 0 only its shape matters.
        """
        _require(0 <= step <= 3, f"step is {step}, not in 0..3")
        r = _array(r, np.int32, "r", (self.channels, None, None))
        _, height, width = r.shape
        _check_map(height, width)
        indexes, means = np.empty(r.shape, np.int16), np.empty(r.shape, np.int16)
        _check(
            _library().dlf_prior_step(self._handle, step, r.ctypes.data, height, width, indexes.ctypes.data, means.ctypes.data)
        )
        return indexes, means


class RansDecoder:
    """Decodes a stream piece by piece, where one step's symbols tell the next one's indexes; see `EntropyModel.rans_decoder`.

    Not for use by several threads at a time. No symbol may be trusted before `finish` has returned.
    """

    def __init__(self, model: EntropyModel, data: bytes) -> None:
        self._model = model  # the native decoder keeps both
        self._data = data
        self._handle = ctypes.c_void_p()
        result = _library().dlf_rans_decoder_open(model._handle, data, len(data), self._handle)
        _check(result, _stream_refusal(result))
        weakref.finalize(self, _library().dlf_rans_decoder_free, self._handle)

    def get(self, indexes: NDArray[np.int16]) -> NDArray[np.int32]:
        """The next symbols, one for each CDF index; those of index -1 are 0.

        Raises InvalidArgumentError, TruncatedError, StreamCorruptError; the decoder is of no use after that.
        """
        indexes = _array(indexes, np.int16, "indexes", (None,))
        symbols = np.empty(indexes.shape, np.int32)
        result = _library().dlf_rans_decoder_get(self._handle, indexes.ctypes.data, indexes.size, symbols.ctypes.data)
        _check(result, f"an index is not in -1..{self._model.cdfs - 1}" if result == 1 else _stream_refusal(result))
        return symbols

    def finish(self) -> None:
        """Check that the stream ends here. Raises TrailingBytesError, StreamCorruptError."""
        result = _library().dlf_rans_decoder_finish(self._handle)
        _check(result, _stream_refusal(result))


def _stream_refusal(result: int) -> str | None:
    return {
        errors.TruncatedError.code: "the stream ends before its last symbol; it is incomplete",
        errors.TrailingBytesError.code: "the stream goes on after its last symbol; it is damaged or of another model",
        errors.StreamCorruptError.code: "the stream does not end as an encoder ends it; it is damaged or of another model",
    }.get(result)


def _array(values: NDArray[Any], dtype: type[Any], name: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """`values`, dense; refuses another dtype or shape. None in `shape` is any length."""
    array = np.asarray(values)
    _require(array.dtype == dtype, f"{name} is an array of {array.dtype}, not {np.dtype(dtype)}")
    fits = array.ndim == len(shape) and all(due in (None, there) for due, there in zip(shape, array.shape, strict=True))
    wanted = ", ".join("any" if due is None else str(due) for due in shape)
    _require(fits, f"{name} has shape {array.shape}, not ({wanted})")
    return np.ascontiguousarray(array)


def _check_map(height: int, width: int) -> None:
    for side in (height, width):
        _require(
            8 <= side <= 1 << 16 and side % 2 == 0, f"the detail map is {height}x{width}; its sides are even, from 8 to 65536"
        )
