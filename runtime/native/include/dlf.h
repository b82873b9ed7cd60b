/* libdlf: the entropy core and the container of the DLF image codec, behind a C ABI.
 *
 * Everything that the arithmetic coder sees is computed here, in integers, the same on every machine.
 * The neural stages that surround it (analysis, synthesis, ...) are run by whoever calls this library.
 * The byte formats are described in docs/format.md.
 *
 * Conventions
 *  - Every function that can fail returns a dlf_result; outputs are written only as each function says.
 *  - No function keeps a pointer that it was given, except where it says so. No function throws.
 *  - No global state. Objects that are `const` in a signature may be shared between threads.
 *  - "hostile" marks inputs that may come from an attacker: any byte sequence is safe there and ends in
 *    a dlf_result. All other inputs are trusted: wrong sizes there are undefined behaviour.
 *  - Arrays are dense, row-major, native-endian; H and W are those of the detail map (padded image / 32).
 *  - Any of them may return INVALID_ARGUMENT for a NULL or a struct_size below sizeof, and OUT_OF_MEMORY.
 *  - Floating-point results are defined for the default rounding (to nearest even). The library is built for 64 bits.
 */
#ifndef DLF_H
#define DLF_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define DLF_API __declspec(dllexport)
#else
#define DLF_API __attribute__((visibility("default")))
#endif

#define DLF_VERSION_MAJOR 0
#define DLF_VERSION_MINOR 1
#define DLF_VERSION_PATCH 0

/* The library's version, "major.minor.patch"; a static string. */
DLF_API const char *dlf_version(void);

/* ------------------------------------------------------------------------------------------ results
 * One code for each kind of refusal. The numbers are part of the ABI. Codes from 40 on are raised by the
 * Python package alone today; they stand here so that a number means one thing everywhere. */
typedef enum dlf_result {
    DLF_OK = 0,
    DLF_ERROR_INVALID_ARGUMENT = 1, /* a NULL, a size of zero, a value out of its range */
    DLF_ERROR_OUT_OF_MEMORY = 2,
    DLF_ERROR_BUFFER_TOO_SMALL = 3, /* the caller's output buffer; the needed size has been written */

    DLF_ERROR_NOT_DLF = 10,             /* the magic byte is missing, or the header contradicts itself */
    DLF_ERROR_UNSUPPORTED_VERSION = 11, /* a .dlf file of a version that this library does not know */
    DLF_ERROR_TRUNCATED = 12,           /* the data end inside the header or the detail stream */
    DLF_ERROR_TRAILING_BYTES = 13,      /* bytes are left after the last symbol */
    DLF_ERROR_CHECKSUM = 14,
    DLF_ERROR_SIZE_LIMIT = 15,     /* more pixels, or a longer side, than the limits allow */
    DLF_ERROR_TOKENS_MISSING = 16, /* the file is too short to hold the tokens of its image size */
    DLF_ERROR_WRONG_MODEL = 17,    /* the file was written with another model (fingerprint) */
    DLF_ERROR_STREAM_CORRUPT = 18, /* the rANS state is not final after the last symbol, or a symbol or token is out of range */

    DLF_ERROR_BUNDLE_BROKEN = 30,  /* a bundle's file is missing, malformed or not what its hash says */
    DLF_ERROR_BUNDLE_FOREIGN = 31, /* not a bundle, or one of a format version that this library does not know */

    DLF_ERROR_BACKEND_MISSING = 40, /* the backend asked for is not installed */
    DLF_ERROR_BACKEND_FAILED = 41,  /* the backend could not load or run a stage */
    DLF_ERROR_IMAGE = 42,           /* an input image that cannot be read, or has an unsupported form */
    DLF_ERROR_CHECKPOINT = 43,      /* not a DLF checkpoint, or one with missing or misshapen tensors */
    DLF_ERROR_EXPORT = 44           /* an exported stage or table does not do what the model does */
} dlf_result;

/* A short English description of a result; a static string, never NULL, also for unknown numbers. */
DLF_API const char *dlf_result_string(dlf_result result);

/* Release a buffer that this library returned. NULL is allowed. */
DLF_API void dlf_free(void *buffer);

/* ---------------------------------------------------------------------------------------- container */

/* What a decoder accepts. Set struct_size to sizeof(dlf_limits). */
typedef struct dlf_limits {
    size_t struct_size;
    uint64_t max_pixels; /* width * height; default 2^26 */
    uint32_t max_side;   /* default 16384 */
} dlf_limits;

/* The header of a .dlf file and where its parts lie. Set struct_size to sizeof(dlf_file_info), the rest to 0. */
typedef struct dlf_file_info {
    size_t struct_size;
    uint32_t width, height; /* of the image, in pixels */
    uint32_t version;       /* of the file format */
    uint32_t fingerprint;   /* of the model, 16 bits: first byte of the SHA-256 of entropy.bin * 256 + second */
    uint32_t token_bits;    /* bits of a token, 1 to 16: log2 of the codebook's size */
    uint32_t has_checksum;  /* 0 or 1 */
    uint32_t tiles;         /* 256x256 tiles */
    /* The parts follow each other in this order; their sizes add up to the file's. */
    size_t header_bytes, token_bytes, detail_bytes, checksum_bytes;
} dlf_file_info;

/* Read and check what can be checked without a model: magic, version, size limits, that the tokens fit, checksum.
 *  data      hostile; size bytes
 *  limits    NULL for the defaults
 *  info      filled as far as parsing went, also when a refusal is returned; the rest is 0
 * Returns DLF_OK, NOT_DLF, UNSUPPORTED_VERSION, TRUNCATED, SIZE_LIMIT, TOKENS_MISSING, CHECKSUM. */
DLF_API dlf_result dlf_file_parse(const void *data, size_t size, const dlf_limits *limits, dlf_file_info *info);

/* Assemble a .dlf file.
 *  info      width, height, fingerprint, token_bits and has_checksum are read
 *  tokens    tiles * 32 tokens, each below 2^token_bits, in tile order
 *  detail    the detail stream, detail_size bytes
 *  out       *out receives a buffer of *size bytes, to be released with dlf_free; unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT, OUT_OF_MEMORY. */
DLF_API dlf_result dlf_file_write(const dlf_file_info *info, const uint16_t *tokens, const void *detail, size_t detail_size,
                                  uint8_t **out, size_t *size);

/* Unpack the tokens of a file that dlf_file_parse accepted.
 *  packed    hostile; at least ceil(count * token_bits / 8) bytes
 *  tokens    receives count tokens */
DLF_API dlf_result dlf_tokens_unpack(const void *packed, size_t count, uint32_t token_bits, uint16_t *tokens);

/* ------------------------------------------------------------------------------------- entropy model */

/* The entropy model of one bundle (entropy.bin): codebook, CDFs, and the integer four-part prior. Immutable;
 * it keeps the memory that coding needs, from one image to the next, for as many threads as used it at the same time. */
typedef struct dlf_entropy dlf_entropy;

/* Set struct_size to sizeof(dlf_entropy_info). */
typedef struct dlf_entropy_info {
    size_t struct_size;
    uint32_t channels;      /* of the detail latent, a multiple of 4 */
    uint32_t codebook_size; /* entries */
    uint32_t codebook_dim;
    uint32_t token_bits; /* ceil(log2(codebook_size)), at least 1 */
    uint32_t cdfs;       /* number of CDFs */
    const char *isa;     /* what the prior runs on: "scalar", "avx2", "avx512" or "neon"; a static string */
} dlf_entropy_info;

/* Read an entropy.bin; the data are copied.
 * The prior runs on the best instructions that the processor has. The environment variable DLF_ISA=scalar|avx2|avx512|neon
 * forces one ("avx512" takes AVX-512 with BW and VNNI); results do not depend on it. Any other value, and one that the
 * processor does not have, is refused as INVALID_ARGUMENT.
 *  data      hostile
 *  out       *out receives the model, to be released with dlf_entropy_free; unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT, BUNDLE_BROKEN, BUNDLE_FOREIGN, OUT_OF_MEMORY. */
DLF_API dlf_result dlf_entropy_open(const void *data, size_t size, dlf_entropy **out);
DLF_API void dlf_entropy_free(dlf_entropy *entropy); /* NULL is allowed */
DLF_API void dlf_entropy_get_info(const dlf_entropy *entropy, dlf_entropy_info *info);

/* Nearest codebook entry (cosine) of each latent token; ties go to the lowest index.
 *  z         (tiles, codebook_dim, 32), of any length: it need not be normalised
 *  tokens    receives (tiles, 32)
 * Returns DLF_OK, INVALID_ARGUMENT (a z that is not finite). */
DLF_API dlf_result dlf_vq_lookup(const dlf_entropy *entropy, const float *z, size_t tiles, uint16_t *tokens);

/* The codebook's unit vectors for tokens: the inverse of dlf_vq_lookup.
 *  tokens    hostile; (tiles, 32)
 *  z_hat     receives (tiles, codebook_dim, 32)
 * Returns DLF_OK, STREAM_CORRUPT (a token that the codebook does not have). */
DLF_API dlf_result dlf_vq_embed(const dlf_entropy *entropy, const uint16_t *tokens, size_t tiles, float *z_hat);

/* Quantise and code a detail latent with the four-part prior.
 *  y         (channels, height, width), finite; height and width even, from 8 to 65536
 *  y_hat     NULL, or receives the latent as the decoder will see it, same shape. Symbols are clamped to 2^20 in size
 *  out       *out receives a buffer of *size bytes, to be released with dlf_free; unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT (also for a y that is not finite), OUT_OF_MEMORY. */
DLF_API dlf_result dlf_detail_encode(const dlf_entropy *entropy, const float *y, uint32_t height, uint32_t width, float *y_hat,
                                     uint8_t **out, size_t *size);

/* Decode a detail stream; the exact inverse of dlf_detail_encode.
 *  data      hostile
 *  y_hat     receives (channels, height, width); undefined on failure
 * Returns DLF_OK, INVALID_ARGUMENT, TRUNCATED, TRAILING_BYTES, STREAM_CORRUPT, OUT_OF_MEMORY. */
DLF_API dlf_result dlf_detail_decode(const dlf_entropy *entropy, const void *data, size_t size, uint32_t height, uint32_t width,
                                     float *y_hat);

/* ---------------------------------------------------------------------------------- building blocks
 * The parts of the two functions above, for implementations that run the prior elsewhere, and for tests. */

/* rANS-code symbols, each with the CDF of its index; index -1 is not coded.
 *  symbols, indexes   count of each; symbols at most 2^20 in size, indexes in -1 .. cdfs-1
 *  out       *out receives a buffer of *size bytes, to be released with dlf_free; unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT, OUT_OF_MEMORY. */
DLF_API dlf_result dlf_rans_encode(const dlf_entropy *entropy, const int32_t *symbols, const int16_t *indexes, size_t count,
                                   uint8_t **out, size_t *size);

/* The inverse; symbols of index -1 are 0.
 *  data      hostile
 *  symbols   receives count symbols; undefined on failure
 * Returns DLF_OK, INVALID_ARGUMENT, TRUNCATED, TRAILING_BYTES, STREAM_CORRUPT. */
DLF_API dlf_result dlf_rans_decode(const dlf_entropy *entropy, const void *data, size_t size, const int16_t *indexes,
                                   size_t count, int32_t *symbols);

/* Entropy parameters of one step of the four-part prior, for every channel and position.
 *  step      0 to 3
 *  r         (channels, height, width) in 1/256: the reconstruction so far, 0 where not yet coded; at step 0 it is not read
 *            and may be NULL
 *  indexes   receives the CDF indexes, -1 where a symbol is not coded
 *  means     receives the means in 1/256 */
DLF_API dlf_result dlf_prior_step(const dlf_entropy *entropy, int step, const int32_t *r, uint32_t height, uint32_t width,
                                  int16_t *indexes, int16_t *means);

#ifdef __cplusplus
}
#endif
#endif
