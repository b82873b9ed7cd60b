"""Python binding of libdlf: the .dlf file, the entropy model, and the reader of bundles.

It calls the functions of `dlf.h`, the header that C programs use; `libdlf_abi` declares them. Arrays are NumPy's. H and W are
the height and width of the detail map: 8 for each tile of 256 pixels. Errors are raised as the classes of `dlf.runtime.errors`;
messages about .dlf files and entropy models name no file, because the functions get bytes.
"""

import ctypes
import hashlib
import json
import math
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlf.runtime import errors, libdlf_abi
from dlf.runtime.formats import TOKENS_PER_TILE, tiles

Direction: TypeAlias = Literal["encode", "decode"]

MESSAGE_BYTES = 512  # of a refusal of a .dlf file


@dataclass(frozen=True)
class Limits:
    """The largest image that a decoder accepts: width * height, and the longer side, in pixels."""

    max_pixels: int = 1 << 26
    max_side: int = 1 << 14


@dataclass(frozen=True)
class FileInfo:
    """The header of a .dlf file, and the sizes in bytes of its parts, in the order of the file."""

    width: int
    height: int
    version: int
    fingerprint: int  # of the model, 16 bits
    token_bits: int
    has_checksum: bool
    tiles: int
    header_bytes: int
    token_bytes: int
    detail_bytes: int  # with coded tokens that of both, which are one stream
    checksum_bytes: int
    metadata_bytes: int
    coded_tokens: bool


@dataclass(frozen=True)
class Metadata:
    """What a .dlf file may keep beside the picture, at most 65536 bytes each; empty where there is none.

    Attributes:
        exif: EXIF, from TIFF's header on, without JPEG's "Exif\\0\\0".
        xmp: an XMP packet, in UTF-8.
    """

    exif: bytes = b""
    xmp: bytes = b""


def library_path() -> Path:
    """Return the path of the installed libdlf.so. Raises FileNotFoundError if the package is not installed."""
    return _installed("lib/libdlf.so")


def include_path() -> Path:
    """Return the folder of the installed dlf.h. Raises FileNotFoundError if the package is not installed."""
    return _installed("include/dlf.h").parent


def _installed(name: str) -> Path:
    beside = Path(__file__).parent / name
    if beside.exists():
        return beside
    # An editable install keeps Python files in the source tree and built files elsewhere; the distribution's list of files tells
    # where. What reads it is imported here, since it takes long.
    from importlib import metadata

    try:
        files = metadata.files("dlf") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix() == f"dlf/runtime/{name}":
            return Path(str(file.locate()))
    raise FileNotFoundError(f"dlf/runtime/{name} is not installed; install the package: pip install .")


@cache
def library() -> ctypes.CDLL:
    """The opened libdlf, declared as in `libdlf_abi`."""
    return libdlf_abi.declare(ctypes.CDLL(str(library_path())))


def version() -> str:
    """Return the library's version."""
    text: bytes = library().dlf_version()
    return text.decode()


def has_int8_dot_products() -> bool:
    """Whether this processor multiplies int8 much faster than fp32."""
    return bool(library().dlf_has_int8_dot_products())


def backend_order(dot_products: bool) -> tuple[tuple[str, str], ...]:
    """Each backend with each precision of bundles, the fastest first, on processors with int8 dot products or without."""
    words = library().dlf_backend_order(dot_products).decode().split()
    return tuple(zip(words[::2], words[1::2], strict=True))


def _fail(result: int, message: str | None = None) -> NoReturn:
    raise errors.BY_CODE[result](message or library().dlf_result_string(result).decode())


def _check(result: int, message: str | None = None) -> None:
    if result:
        _fail(result, message)


def _take(out: ctypes.c_void_p, size: ctypes.c_size_t) -> bytes:
    """Copy the bytes of a buffer that the library allocated, and release it."""
    try:
        return ctypes.string_at(out, size.value)
    finally:
        library().dlf_free(out)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise errors.InvalidArgumentError(message)


# ---------------------------------------------------------------------------------------------------------- container


def parse_file(data: bytes | bytearray | memoryview, limits: Limits | None = None, *, preview: bool = False) -> FileInfo:
    """Read the header of a .dlf file and check what can be checked without a model.

    With `preview` the header and the tokens are enough: what is behind them may be cut off, is not checked, and is counted as
    detail.

    Raises NotDLFError, UnsupportedVersionError, TruncatedError, SizeLimitError, TokensMissingError, ChecksumError, and
    InvalidArgumentError if `data` is not bytes.
    """
    if isinstance(data, (bytearray, memoryview)):
        data = bytes(data)
    _require(isinstance(data, bytes), f"a .dlf file is given as its bytes, not as {type(data).__name__}; read it first")
    limits = limits or Limits()
    raw, message = libdlf_abi.FileInfo(), ctypes.create_string_buffer(MESSAGE_BYTES)
    # Limits above the C types' range are no limits: the format's own largest image is below both.
    native = libdlf_abi.Limits(max_pixels=min(limits.max_pixels, 2**64 - 1), max_side=min(limits.max_side, 2**32 - 1))
    parse = library().dlf_preview_parse if preview else library().dlf_file_parse
    _check(parse(data, len(data), native, raw, message, len(message)), message.value.decode())
    values = {name: getattr(raw, name) for name in FileInfo.__dataclass_fields__}
    return FileInfo(**{**values, "has_checksum": bool(raw.has_checksum), "coded_tokens": bool(raw.coded_tokens)})


def write_file(
    *,
    width: int,
    height: int,
    fingerprint: int,
    token_bits: int,
    tokens: NDArray[np.uint16] | None,
    detail: bytes,
    checksum: bool = True,
) -> bytes:
    """Assemble a .dlf file of an image of `width` x `height` pixels.

    `tokens` is (tiles, 32) in tile order, each below 2^token_bits. It is None where tokens are coded, and `detail` is the
    stream of both. Raises InvalidArgumentError.
    """
    for name, value, low, high in (
        ("width", width, 1, 1 << 21),
        ("height", height, 1, 1 << 21),
        ("fingerprint", fingerprint, 0, 0xFFFF),
        ("token_bits", token_bits, 1, 16),
    ):
        _require(low <= value <= high, f"{name} is {value}, not in {low}..{high}")
    if tokens is not None:
        tokens = _array(tokens, np.uint16, "tokens", (math.prod(tiles(height, width)), TOKENS_PER_TILE))
        _require(int(tokens.max()) >> token_bits == 0, f"a token is {tokens.max()}, too large for {token_bits} bits")
    info = libdlf_abi.FileInfo(
        width=width,
        height=height,
        fingerprint=fingerprint,
        token_bits=token_bits,
        has_checksum=checksum,
        coded_tokens=tokens is None,
    )
    out, size = ctypes.c_void_p(), ctypes.c_size_t()
    _check(library().dlf_file_write(info, None if tokens is None else tokens.ctypes.data, detail, len(detail), out, size))
    return _take(out, size)


def read_metadata(data: bytes | bytearray | memoryview) -> Metadata:
    """Return the metadata of a .dlf file. Their checksums have been checked, and nothing of their content.

    Raises as `parse_file`, without limits of the image.
    """
    data = bytes(data)
    raw, message = libdlf_abi.Metadata(), ctypes.create_string_buffer(MESSAGE_BYTES)
    _check(library().dlf_metadata_read(data, len(data), raw, message, len(message)), message.value.decode())
    exif, xmp = (ctypes.string_at(at, size) if size else b"" for at, size in ((raw.exif, raw.exif_size), (raw.xmp, raw.xmp_size)))
    return Metadata(exif, xmp)


def replace_metadata(data: bytes, metadata: Metadata) -> bytes:
    """Return a .dlf file with other metadata in the place of all that it has, or with none; the picture stays as it is.

    Raises as `parse_file`, without limits of the image, and SizeLimitError of the metadata.
    """
    kept = [ctypes.create_string_buffer(content, len(content)) for content in (metadata.exif, metadata.xmp)]
    raw = libdlf_abi.Metadata(
        **{name: ctypes.addressof(buffer) for name, buffer in zip(("exif", "xmp"), kept, strict=True)},
        exif_size=len(metadata.exif),
        xmp_size=len(metadata.xmp),
    )
    out, size, message = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.create_string_buffer(MESSAGE_BYTES)
    result = library().dlf_metadata_replace(data, len(data), raw, out, size, message, len(message))
    _check(result, message.value.decode())
    return _take(out, size)


def unpack_tokens(data: bytes, info: FileInfo) -> NDArray[np.uint16]:
    """Return the tokens (tiles, 32), in tile order, of a file that packs them; `info` is what `parse_file` returned for it."""
    packed = data[info.header_bytes : info.header_bytes + info.token_bytes]
    _require(
        len(packed) == info.token_bytes, f"{len(packed)} bytes of tokens, not {info.token_bytes}: not the file that was parsed"
    )
    tokens = np.empty((info.tiles, TOKENS_PER_TILE), np.uint16)
    _check(library().dlf_tokens_unpack(packed, tokens.size, info.token_bits, tokens.ctypes.data))
    return tokens


def detail_stream(data: bytes, info: FileInfo) -> bytes:
    """Return the detail stream of a file that packs its tokens; `info` is what `parse_file` returned for it."""
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
        coded_tokens: whether it has frequencies of tokens, by which all its files code them.
        isa: the instruction set that the prior uses, "scalar", "avx2", "avx512" or "neon": the fastest that the processor has,
            or the one that the environment variable DLF_ISA names. Results do not depend on it.
        fingerprint: 16 bits that identify the model in a .dlf file: the first two bytes of the data's SHA-256. It is shown as
            `f"{fingerprint:04x}"`.
    """

    _bundle: "BundleReader | None" = None

    def __init__(self, data: bytes) -> None:
        """Read the content of an `entropy.bin`.

        Raises BundleForeignError, BundleBrokenError, and InvalidArgumentError if the processor lacks the instruction set that
        DLF_ISA names.
        """
        self._handle = ctypes.c_void_p()
        result = library().dlf_entropy_open(data, len(data), self._handle)
        if result == errors.InvalidArgumentError.code:
            isa = os.environ.get("DLF_ISA")
            _fail(result, f"this processor cannot run DLF_ISA={isa}; unset it, or set it to scalar, avx2, avx512 or neon")
        if result == errors.BundleForeignError.code:
            _fail(result, "it is not an entropy.bin of a version that this dlf reads; export the bundle again")
        _check(result, "it breaks the rules of entropy.bin, so it is damaged; export or copy the bundle again")
        weakref.finalize(self, library().dlf_entropy_free, self._handle)
        self._describe(int.from_bytes(hashlib.sha256(data).digest()[:2], "big"))

    @classmethod
    def _of(cls, bundle: "BundleReader") -> "EntropyModel":
        """The one of an open bundle."""
        model = cls.__new__(cls)
        model._bundle = bundle  # which it belongs to
        model._handle = ctypes.c_void_p(library().dlf_bundle_entropy(bundle._handle))
        model._describe(bundle.fingerprint)
        return model

    def _describe(self, fingerprint: int) -> None:
        info = libdlf_abi.EntropyInfo()
        library().dlf_entropy_get_info(self._handle, info)
        self.channels: int = info.channels
        self.codebook_size: int = info.codebook_size
        self.codebook_dim: int = info.codebook_dim
        self.token_bits: int = info.token_bits
        self.cdfs: int = info.cdfs
        self.coded_tokens = bool(info.coded_tokens)
        self.isa: str = info.isa.decode()
        self.fingerprint = fingerprint

    def vq_lookup(self, z: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Return the tokens (tiles, 32) of a latent z (tiles, codebook_dim, 32).

        A token is the index of the codebook entry nearest in angle; of equally near ones, the lowest.

        Raises InvalidArgumentError if z has another shape or is not finite.
        """
        z = _array(z, np.float32, "z", (None, self.codebook_dim, TOKENS_PER_TILE))
        tokens = np.empty((len(z), TOKENS_PER_TILE), np.uint16)
        result = library().dlf_vq_lookup(self._handle, z.ctypes.data, len(z), tokens.ctypes.data)
        _check(result, "z is not finite: the analysis stage gave NaN or infinity")
        return tokens

    def vq_embed(self, tokens: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Return the unit vectors (tiles, codebook_dim, 32) of tokens (tiles, 32).

        Raises StreamCorruptError if a token is not in the codebook.
        """
        tokens = _array(tokens, np.uint16, "tokens", (None, TOKENS_PER_TILE))
        z_hat = np.empty((len(tokens), self.codebook_dim, TOKENS_PER_TILE), np.float32)
        result = library().dlf_vq_embed(self._handle, tokens.ctypes.data, len(tokens), z_hat.ctypes.data)
        _check(result, f"a token is outside the codebook of {self.codebook_size} entries; the file is damaged")
        return z_hat

    def write_file(self, width: int, height: int, tokens: NDArray[np.uint16], detail: bytes, *, checksum: bool = True) -> bytes:
        """Return the .dlf file of an image of `width` x `height` pixels that was encoded with this model; see `write_file`."""
        return write_file(
            width=width,
            height=height,
            fingerprint=self.fingerprint,
            token_bits=self.token_bits,
            tokens=None if self.coded_tokens else tokens,
            detail=self._encode_tokens(tokens, detail, math.prod(tiles(height, width))) if self.coded_tokens else detail,
            checksum=checksum,
        )

    def _encode_tokens(self, tokens: NDArray[np.uint16], detail: bytes, count: int) -> bytes:
        """The stream of the tokens of `count` tiles and the detail."""
        tokens = _array(tokens, np.uint16, "tokens", (count, TOKENS_PER_TILE))
        out, size = ctypes.c_void_p(), ctypes.c_size_t()
        result = library().dlf_tokens_encode(self._handle, tokens.ctypes.data, count, detail, len(detail), out, size)
        _check(result, f"a token is outside the codebook of {self.codebook_size} entries" if result == 1 else None)
        return _take(out, size)

    def read_file(self, data: bytes, info: FileInfo) -> tuple[NDArray[np.uint16], bytes]:
        """Return the tokens (tiles, 32) and the detail stream of a file, of which `parse_file` returned `info`.

        Where the file was parsed for a preview, the stream may be of no use.

        Raises:
            InvalidArgumentError: the file codes its tokens and this model's do not, or the other way round.
            TruncatedError, StreamCorruptError: the file is damaged.
        """
        _require(info.coded_tokens == self.coded_tokens, "the file has its tokens in another form than the model's files")
        if not info.coded_tokens:
            return unpack_tokens(data, info), detail_stream(data, info)
        stream = data[info.header_bytes : info.header_bytes + info.detail_bytes]
        tokens, size = np.empty((info.tiles, TOKENS_PER_TILE), np.uint16), ctypes.c_size_t()
        detail = ctypes.create_string_buffer(max(1, len(stream)))
        decode = library().dlf_tokens_decode
        result = decode(self._handle, stream, len(stream), info.tiles, tokens.ctypes.data, detail, size)
        _check(result, _stream_refusal(result))
        return tokens, detail.raw[: size.value]

    def encode_detail(self, y: NDArray[np.float32]) -> bytes:
        """Quantise a detail latent y (C, H, W) and return its stream.

        Raises InvalidArgumentError if y has another shape or is not finite.
        """
        return self._encode_detail(y, None)

    def encode_detail_with_reconstruction(self, y: NDArray[np.float32]) -> tuple[bytes, NDArray[np.float32]]:
        """Return what `encode_detail` does, and y_hat (C, H, W), the latent that the decoder will reconstruct."""
        y_hat = np.empty(np.shape(y), np.float32)
        return self._encode_detail(y, y_hat), y_hat

    def _encode_detail(self, y: NDArray[np.float32], y_hat: NDArray[np.float32] | None) -> bytes:
        y = _array(y, np.float32, "y", (self.channels, None, None))
        _, height, width = y.shape
        _check_map(height, width)
        reconstruction = None if y_hat is None else y_hat.ctypes.data
        out, size = ctypes.c_void_p(), ctypes.c_size_t()
        result = library().dlf_detail_encode(self._handle, y.ctypes.data, height, width, reconstruction, out, size)
        _check(result, "y is not finite: the analysis stage gave NaN or infinity" if result == 1 else None)
        return _take(out, size)

    def decode_detail(self, data: bytes, height: int, width: int) -> NDArray[np.float32]:
        """Return y_hat (C, height, width), decoded from a detail stream.

        Raises TruncatedError, TrailingBytesError, StreamCorruptError.
        """
        _check_map(height, width)
        y_hat = np.empty((self.channels, height, width), np.float32)
        result = library().dlf_detail_decode(self._handle, data, len(data), height, width, y_hat.ctypes.data)
        _check(result, _stream_refusal(result))
        return y_hat

    def rans_encode(self, symbols: NDArray[np.int32], indexes: NDArray[np.int16]) -> bytes:
        """Return the stream of symbols in -2^20..2^20, each coded with the CDF of its index. Those of index -1 are not coded.

        Raises InvalidArgumentError.
        """
        symbols = _array(symbols, np.int32, "symbols", (None,))
        indexes = _array(indexes, np.int16, "indexes", symbols.shape)
        out, size = ctypes.c_void_p(), ctypes.c_size_t()
        result = library().dlf_rans_encode(self._handle, symbols.ctypes.data, indexes.ctypes.data, symbols.size, out, size)
        _check(result, f"a symbol is over 2^20 in size or an index not in -1..{self.cdfs - 1}" if result == 1 else None)
        return _take(out, size)

    def rans_decode(self, data: bytes, indexes: NDArray[np.int16]) -> NDArray[np.int32]:
        """Decode a stream of `rans_encode`. Symbols of index -1 are 0.

        Raises InvalidArgumentError, TruncatedError, TrailingBytesError, StreamCorruptError.
        """
        indexes = _array(indexes, np.int16, "indexes", (None,))
        symbols = np.empty(indexes.shape, np.int32)
        result = library().dlf_rans_decode(self._handle, data, len(data), indexes.ctypes.data, indexes.size, symbols.ctypes.data)
        _check(result, f"an index is not in -1..{self.cdfs - 1}" if result == 1 else _stream_refusal(result))
        return symbols

    def rans_decoder(self, data: bytes) -> "RansDecoder":
        """Return a decoder that decodes a stream in several calls. Raises TruncatedError, StreamCorruptError."""
        return RansDecoder(self, data)

    def prior_step(self, step: int, r: NDArray[np.int32]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """Return CDF indexes (-1: not coded) and means (in 1/256), both (C, H, W), of step 0 to 3 of the four-part prior.

        `r` (C, H, W) is the reconstruction so far in 1/256, 0 where nothing is coded yet; at step 0 only its shape matters.
        """
        _require(0 <= step <= 3, f"step is {step}, not in 0..3")
        r = _array(r, np.int32, "r", (self.channels, None, None))
        _, height, width = r.shape
        _check_map(height, width)
        indexes, means = np.empty(r.shape, np.int16), np.empty(r.shape, np.int16)
        _check(library().dlf_prior_step(self._handle, step, r.ctypes.data, height, width, indexes.ctypes.data, means.ctypes.data))
        return indexes, means


class RansDecoder:
    """Decodes a stream in several calls, for steps whose indexes depend on the symbols before; see `EntropyModel.rans_decoder`.

    Not for use by several threads at a time. The symbols are only known to be valid once `finish` has returned.
    """

    def __init__(self, model: EntropyModel, data: bytes) -> None:
        self._model = model  # the native decoder keeps both
        self._data = data
        self._handle = ctypes.c_void_p()
        result = library().dlf_rans_decoder_open(model._handle, data, len(data), self._handle)
        _check(result, _stream_refusal(result))
        weakref.finalize(self, library().dlf_rans_decoder_free, self._handle)

    def get(self, indexes: NDArray[np.int16]) -> NDArray[np.int32]:
        """Return the next symbols, one for each CDF index; those of index -1 are 0.

        Raises InvalidArgumentError, TruncatedError, StreamCorruptError. After an error the decoder cannot be used again.
        """
        indexes = _array(indexes, np.int16, "indexes", (None,))
        symbols = np.empty(indexes.shape, np.int32)
        result = library().dlf_rans_decoder_get(self._handle, indexes.ctypes.data, indexes.size, symbols.ctypes.data)
        _check(result, f"an index is not in -1..{self._model.cdfs - 1}" if result == 1 else _stream_refusal(result))
        return symbols

    def finish(self) -> None:
        """Check that the stream ends here. Raises TrailingBytesError, StreamCorruptError."""
        result = library().dlf_rans_decoder_finish(self._handle)
        _check(result, _stream_refusal(result))


def _stream_refusal(result: int) -> str | None:
    return {
        errors.TruncatedError.code: "the stream ends before its last symbol; it is incomplete",
        errors.TrailingBytesError.code: "the stream goes on after its last symbol; it is damaged or of another model",
        errors.StreamCorruptError.code: "the stream does not end as an encoder ends it; it is damaged or of another model",
    }.get(result)


# ------------------------------------------------------------------------------------------------------------ bundle


class BundleReader:
    """libdlf's reader of a bundle; `dlf.runtime.bundles.bundle` has what Python makes of it. For one thread at a time.

    Attributes:
        name: of the model.
        fingerprint: as `EntropyModel` has it.
        precision: of the stages.
        manifest: the content of manifest.json, which libdlf has checked.
        entropy: the entropy model, which may be used from any thread.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open the bundle in a folder. Raises BundleForeignError, BundleBrokenError, and InvalidArgumentError of DLF_ISA."""
        path = os.fsencode(folder)
        _require(b"\0" not in path, f"a folder's name has no byte 0, as {folder!r} has")
        self._handle = ctypes.c_void_p()
        result = library().dlf_bundle_open(path, self._handle)
        weakref.finalize(self, library().dlf_bundle_free, self._handle)
        self._check(result)
        info = libdlf_abi.BundleInfo()
        self._check(library().dlf_bundle_get_info(self._handle, info))
        self.name: str = info.name.decode()
        self.fingerprint: int = info.fingerprint
        self.precision: str = info.precision.decode()
        self.manifest: dict[str, Any] = json.loads(info.manifest)
        self.entropy = EntropyModel._of(self)

    def stage(self, name: str) -> Path:
        """A stage's ONNX file, checked together with its external data. Raises BundleBrokenError."""
        return Path(os.fsdecode(self._ask(library().dlf_bundle_stage, name)))

    def stage_digest(self, name: str) -> str:
        """The SHA-256 of what a stage computes, in hexadecimal; see `dlf_bundle_stage_digest`. Raises BundleBrokenError."""
        return self._ask(library().dlf_bundle_stage_digest, name).decode()

    def file(self, name: str) -> Path:
        """A file that the manifest lists, checked. Raises BundleBrokenError."""
        return Path(os.fsdecode(self._ask(library().dlf_bundle_file, name)))

    def levels(self, threads: int | None) -> "Levels | None":
        """The generator's upper levels, see `Levels`; None where the bundle lists none, or none that can be computed here.

        Raises BundleBrokenError.
        """
        handle = ctypes.c_void_p()
        self._check(library().dlf_levels_open(self._handle, threads or 0, handle))
        return Levels(handle) if handle else None

    def check_memory(
        self, backend: str, direction: Direction, height: int, width: int, images: int, limit: int | None, *, low_memory: bool
    ) -> bool:
        """Whether stages must be released for images of one size to fit into `limit`; see `dlf_bundle_check_memory`.

        Raises OutOfMemoryError: they do not fit even so.
        """
        what = {"encode": 1, "decode": 2}[direction]
        release = ctypes.c_uint32(low_memory)
        most = min(limit or 0, 2**64 - 1)
        check = library().dlf_bundle_check_memory
        self._check(check(self._handle, backend.encode(), what, width, height, images, most, release))
        return bool(release.value)

    def _ask(self, function: Callable[..., int], name: str) -> bytes:
        answer = ctypes.c_char_p()
        self._check(function(self._handle, name.encode(), answer))
        assert answer.value is not None
        return answer.value

    def _check(self, result: int) -> None:
        if result:
            _fail(result, library().dlf_bundle_message(self._handle).decode())


class Levels:
    """The pixel generator's upper levels, which libdlf computes in fewer products than a backend would.

    May be used by several threads at a time.

    Attributes:
        stage: the stage that computes the map which enters them.
        channels: of that map.
    """

    def __init__(self, handle: ctypes.c_void_p) -> None:
        """Take over a `dlf_levels`; `BundleReader.levels` has one."""
        self._handle = handle
        weakref.finalize(self, library().dlf_levels_free, handle)
        self.stage: str = library().dlf_levels_stage(handle).decode()
        self.channels: int = library().dlf_levels_channels(handle)

    def run(self, base: NDArray[np.float32]) -> NDArray[np.float32]:
        """The map (n, channels, height, width) as images (n, 3, 16 height, 16 width), -1 to 1; height and width multiples of 4.

        Raises InvalidArgumentError, OutOfMemoryError.
        """
        base = _array(base, np.float32, "base", (None, self.channels, None, None))
        n, _, height, width = base.shape
        _require(height % 4 == 0 and width % 4 == 0, f"the map's sides are multiples of 4, not {height} and {width}")
        images = np.empty((n, 3, 16 * height, 16 * width), np.float32)
        for x, image in zip(base, images, strict=True):
            _check(library().dlf_levels_run(self._handle, x.ctypes.data, height, width, image.ctypes.data))
        return images


def usable_processors() -> int:
    """How many processors this process may use: those of its affinity, or fewer where a control group allows less time."""
    return int(library().dlf_usable_processors(b""))


def _array(values: NDArray[Any], dtype: type[Any], name: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Return `values` in C order. Raises InvalidArgumentError for another dtype or shape; None in `shape` is any length."""
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
