"""libdlf for ctypes: the structs and functions that Python uses. A test compares them with the headers."""

import ctypes
from collections.abc import Sequence
from ctypes import c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any


class Sized(ctypes.Structure):
    """A struct that begins with its size."""

    def __init__(self, **values: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(self), **values)


class Limits(Sized):
    """`dlf_limits`."""

    _fields_ = (("struct_size", c_size_t), ("max_pixels", c_uint64), ("max_side", c_uint32))


class FileInfo(Sized):
    """`dlf_file_info`."""

    _fields_ = (
        ("struct_size", c_size_t),
        *((name, c_uint32) for name in ("width", "height", "version", "fingerprint", "token_bits", "has_checksum", "tiles")),
        *((name, c_size_t) for name in ("header_bytes", "token_bytes", "detail_bytes", "checksum_bytes", "metadata_bytes")),
        ("coded_tokens", c_uint32),
    )


class Metadata(Sized):
    """`dlf_metadata`."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("exif", c_void_p),
        ("exif_size", c_size_t),
        ("xmp", c_void_p),
        ("xmp_size", c_size_t),
    )


class EntropyInfo(Sized):
    """`dlf_entropy_info`."""

    _fields_ = (
        ("struct_size", c_size_t),
        *((name, c_uint32) for name in ("channels", "codebook_size", "codebook_dim", "token_bits", "cdfs", "coded_tokens")),
        ("isa", c_char_p),
    )


class BundleInfo(Sized):
    """`dlf_bundle_info`."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("fingerprint", c_uint32),
        ("precision", c_char_p),
        ("manifest", c_char_p),
    )


_out, _out_size, _out_text = ctypes.POINTER(c_void_p), ctypes.POINTER(c_size_t), ctypes.POINTER(c_char_p)

# Function -> what it returns, and its parameters.
FUNCTIONS: dict[str, tuple[Any, Sequence[Any]]] = {
    "dlf_version": (c_char_p, ()),
    "dlf_result_string": (c_char_p, (c_int,)),
    "dlf_free": (None, (c_void_p,)),
    "dlf_file_parse": (
        c_int,
        (c_char_p, c_size_t, ctypes.POINTER(Limits), ctypes.POINTER(FileInfo), c_char_p, c_size_t),
    ),
    "dlf_preview_parse": (
        c_int,
        (c_char_p, c_size_t, ctypes.POINTER(Limits), ctypes.POINTER(FileInfo), c_char_p, c_size_t),
    ),
    "dlf_file_write": (c_int, (ctypes.POINTER(FileInfo), c_void_p, c_char_p, c_size_t, _out, _out_size)),
    "dlf_metadata_read": (c_int, (c_char_p, c_size_t, ctypes.POINTER(Metadata), c_char_p, c_size_t)),
    "dlf_metadata_replace": (c_int, (c_char_p, c_size_t, ctypes.POINTER(Metadata), _out, _out_size, c_char_p, c_size_t)),
    "dlf_tokens_unpack": (c_int, (c_char_p, c_size_t, c_uint32, c_void_p)),
    "dlf_tokens_encode": (c_int, (c_void_p, c_void_p, c_size_t, c_char_p, c_size_t, _out, _out_size)),
    "dlf_tokens_decode": (c_int, (c_void_p, c_char_p, c_size_t, c_size_t, c_void_p, c_char_p, _out_size)),
    "dlf_entropy_open": (c_int, (c_char_p, c_size_t, _out)),
    "dlf_entropy_free": (None, (c_void_p,)),
    "dlf_entropy_get_info": (None, (c_void_p, ctypes.POINTER(EntropyInfo))),
    "dlf_vq_lookup": (c_int, (c_void_p, c_void_p, c_size_t, c_void_p)),
    "dlf_vq_embed": (c_int, (c_void_p, c_void_p, c_size_t, c_void_p)),
    "dlf_detail_encode": (c_int, (c_void_p, c_void_p, c_uint32, c_uint32, c_void_p, _out, _out_size)),
    "dlf_detail_decode": (c_int, (c_void_p, c_char_p, c_size_t, c_uint32, c_uint32, c_void_p)),
    "dlf_rans_encode": (c_int, (c_void_p, c_void_p, c_void_p, c_size_t, _out, _out_size)),
    "dlf_rans_decode": (c_int, (c_void_p, c_char_p, c_size_t, c_void_p, c_size_t, c_void_p)),
    "dlf_rans_decoder_open": (c_int, (c_void_p, c_char_p, c_size_t, _out)),
    "dlf_rans_decoder_get": (c_int, (c_void_p, c_void_p, c_size_t, c_void_p)),
    "dlf_rans_decoder_finish": (c_int, (c_void_p,)),
    "dlf_rans_decoder_free": (None, (c_void_p,)),
    "dlf_prior_step": (c_int, (c_void_p, c_int, c_void_p, c_uint32, c_uint32, c_void_p, c_void_p)),
    "dlf_bundle_open": (c_int, (c_char_p, _out)),
    "dlf_bundle_free": (None, (c_void_p,)),
    "dlf_bundle_message": (c_char_p, (c_void_p,)),
    "dlf_bundle_get_info": (c_int, (c_void_p, ctypes.POINTER(BundleInfo))),
    "dlf_bundle_entropy": (c_void_p, (c_void_p,)),
    "dlf_bundle_stage": (c_int, (c_void_p, c_char_p, _out_text)),
    "dlf_bundle_stage_digest": (c_int, (c_void_p, c_char_p, _out_text)),
    "dlf_bundle_file": (c_int, (c_void_p, c_char_p, _out_text)),
    "dlf_mapped_pages_begin": (c_void_p, (c_char_p,)),
    "dlf_mapped_pages_end": (None, (c_void_p,)),
    "dlf_has_int8_dot_products": (c_int, ()),
    "dlf_backend_order": (c_char_p, (c_int,)),
    "dlf_bundle_check_memory": (
        c_int,
        (c_void_p, c_char_p, c_uint32, c_uint32, c_uint32, c_uint32, c_uint64, ctypes.POINTER(c_uint32)),
    ),
    "dlf_levels_isa": (c_char_p, ()),
    "dlf_levels_open": (c_int, (c_void_p, c_uint32, _out)),
    "dlf_levels_free": (None, (c_void_p,)),
    "dlf_levels_stage": (c_char_p, (c_void_p,)),
    "dlf_levels_channels": (c_uint32, (c_void_p,)),
    "dlf_levels_run": (c_int, (c_void_p, c_void_p, c_size_t, c_size_t, c_void_p)),
    "dlf_usable_processors": (c_uint32, (c_char_p,)),
    "dlf_usable_memory": (c_uint64, (c_char_p,)),
}


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tell ctypes the functions of an opened libdlf."""
    for name, (result, parameters) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, parameters
    return library
