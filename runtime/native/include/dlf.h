/* libdlf: the DLF image codec behind a C ABI.
 *
 *     dlf_model *model;          // a bundle and a backend for its neural stages; shared between threads
 *     dlf_context *context;      // the memory of one thread
 *     dlf_model_open("bundle", NULL, &model);
 *     dlf_context_create(model, NULL, &context);
 *     dlf_encode(context, &image, NULL, &data, &size);
 *     dlf_decode(context, data, size, &image);
 *
 * Each returns a dlf_result, which tells whether it failed.
 *
 * The neural stages run in floating point, on a backend. Everything that the arithmetic coder sees is computed here, in
 * integers, the same on every machine: a file that one device wrote decodes on any other. docs/format.md has the byte formats.
 *
 * Conventions
 *  - Every function that can fail returns a dlf_result; outputs are written only as each function says.
 *  - No function keeps a pointer that it was given, except where it says so. No function throws.
 *  - A pointer is not NULL, except where its function says that it may be.
 *  - The log callback is the only global state. Objects that are `const` in a signature may be shared between threads; any other
 *    object is used by one thread at a time.
 *  - "hostile" marks inputs that may come from an attacker: any byte sequence is safe there and ends in
 *    a dlf_result. All other inputs are trusted: wrong sizes there are undefined behaviour.
 *  - A struct begins with struct_size, which its user sets to its sizeof, so that later versions can add fields at its end,
 *    below the comment that says where a version ends. In option structs 0 stands for the default; set what is not needed to 0.
 *  - Strings are UTF-8 and end with a 0.
 *  - Arrays are dense, row-major, native-endian; H and W are those of the detail map (padded image / 32).
 *  - Any function may return INVALID_ARGUMENT for a NULL or a struct_size below sizeof, and OUT_OF_MEMORY.
 *  - Floating-point results are defined for the default rounding (to nearest even). The library is built for 64 bits.
 */
#ifndef DLF_H
#define DLF_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __cplusplus
#define DLF_NOEXCEPT noexcept
#else
#define DLF_NOEXCEPT
#endif

#if defined(_WIN32)
#define DLF_API __declspec(dllexport)
#else
#define DLF_API __attribute__((visibility("default")))
#endif

/* Of a function whose result tells whether it failed: a compiler warns where a call drops it. */
#if (defined(__cplusplus) && __cplusplus >= 201703L) || (defined(__STDC_VERSION__) && __STDC_VERSION__ > 202000L)
#define DLF_NODISCARD [[nodiscard]]
#elif defined(__GNUC__)
#define DLF_NODISCARD __attribute__((warn_unused_result))
#else
#define DLF_NODISCARD
#endif

#define DLF_VERSION_MAJOR 0
#define DLF_VERSION_MINOR 1
#define DLF_VERSION_PATCH 0

#define DLF_TEXT_(x) #x
#define DLF_TEXT(x) DLF_TEXT_(x)
/* The header's version, "major.minor.patch", and the same as a number that grows: 10203 is 1.2.3. */
#define DLF_VERSION DLF_TEXT(DLF_VERSION_MAJOR) "." DLF_TEXT(DLF_VERSION_MINOR) "." DLF_TEXT(DLF_VERSION_PATCH)
#define DLF_VERSION_NUMBER (DLF_VERSION_MAJOR * 10000 + DLF_VERSION_MINOR * 100 + DLF_VERSION_PATCH)

/* The library's version: the DLF_VERSION that it was built with; a static string. */
DLF_API const char *dlf_version(void) DLF_NOEXCEPT;

/* ------------------------------------------------------------------------------------------ results
 * One code for each kind of refusal. The numbers are part of the ABI. Codes from 43 on are raised by the
 * Python package alone; they stand here so that a number means one thing everywhere. */
typedef enum dlf_result {
    DLF_OK = 0,
    DLF_ERROR_INVALID_ARGUMENT = 1, /* a NULL, a size of zero, a value out of its range */
    DLF_ERROR_OUT_OF_MEMORY = 2,
    DLF_ERROR_BUFFER_TOO_SMALL = 3, /* the caller's output buffer; the size that it takes has been written */

    DLF_ERROR_NOT_DLF = 10,             /* the magic byte is missing, or the header contradicts itself */
    DLF_ERROR_UNSUPPORTED_VERSION = 11, /* a .dlf file of a version that this library does not know */
    DLF_ERROR_TRUNCATED = 12,           /* the data end inside the header or the detail stream */
    DLF_ERROR_TRAILING_BYTES = 13,      /* bytes are left after the last symbol */
    DLF_ERROR_CHECKSUM = 14,
    DLF_ERROR_SIZE_LIMIT = 15,     /* more pixels, or a longer side, than the limits allow */
    DLF_ERROR_TOKENS_MISSING = 16, /* the file is too short to hold its tokens, checksum and metadata */
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
DLF_API const char *dlf_result_string(dlf_result result) DLF_NOEXCEPT;

/* Release a buffer that this library handed over; it is malloc's. NULL is allowed. */
DLF_API void dlf_free(void *buffer) DLF_NOEXCEPT;

/* ---------------------------------------------------------------------------------------- container */

/* The largest image that is accepted. Both are to be set. */
typedef struct dlf_limits {
    size_t struct_size;
    uint64_t max_pixels; /* width * height; default 2^26 */
    uint32_t max_side;   /* default 16384 */
    /* Version 0.1 ends here. */
} dlf_limits;

/* The header of a .dlf file and where its parts lie. */
typedef struct dlf_file_info {
    size_t struct_size;
    uint32_t width, height; /* of the image, in pixels */
    uint32_t version;       /* of the file format */
    uint32_t fingerprint;   /* of the model, 16 bits: first byte of the SHA-256 of entropy.bin * 256 + second */
    uint32_t token_bits;    /* of a packed token, 1 to 16: log2 of the codebook's size */
    uint32_t has_checksum;  /* 0 or 1 */
    uint32_t tiles;         /* 256x256 tiles */
    /* The parts follow each other in this order; their sizes add up to the file's. */
    size_t header_bytes, token_bytes, detail_bytes, checksum_bytes, metadata_bytes;
    uint32_t coded_tokens; /* 0 or 1: tokens and detail are one stream, which is counted as detail */
    /* Version 0.1 ends here. */
} dlf_file_info;

/* Read and check what can be checked without a model: magic, version, size limits, that the tokens fit, checksum, metadata.
 *  data      hostile; size bytes
 *  limits    NULL for the defaults
 *  info      filled as far as parsing went, also when a refusal is returned; the rest is 0
 *  message   NULL, or receives the reason of a refusal (the fact and the remedy; it does not name the file) or "", cut to
 *            message_size bytes with the 0 at the end
 * Returns DLF_OK, NOT_DLF, UNSUPPORTED_VERSION, TRUNCATED, SIZE_LIMIT, TOKENS_MISSING, CHECKSUM, STREAM_CORRUPT (metadata). */
DLF_NODISCARD DLF_API dlf_result dlf_file_parse(const void *data, size_t size, const dlf_limits *limits, dlf_file_info *info,
                                                char *message, size_t message_size) DLF_NOEXCEPT;

/* The same of the start of a .dlf file, which is enough for a preview: header and tokens. What is behind the tokens is counted as
 * detail, and neither checked nor needed; checksum_bytes and metadata_bytes are 0.
 * Returns DLF_OK, NOT_DLF, UNSUPPORTED_VERSION, TRUNCATED, SIZE_LIMIT, TOKENS_MISSING. */
DLF_NODISCARD DLF_API dlf_result dlf_preview_parse(const void *data, size_t size, const dlf_limits *limits, dlf_file_info *info,
                                                   char *message, size_t message_size) DLF_NOEXCEPT;

/* Assemble a .dlf file.
 *  info      width, height, fingerprint, token_bits, has_checksum and coded_tokens are read
 *  tokens    tiles * 32 tokens, each below 2^token_bits, in tile order; NULL with coded_tokens
 *  detail    the detail stream, detail_size bytes; with coded_tokens what dlf_tokens_encode made of it
 *  out       *out receives a buffer of *size bytes, to be released with dlf_free; unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT, OUT_OF_MEMORY. */
DLF_NODISCARD DLF_API dlf_result dlf_file_write(const dlf_file_info *info, const uint16_t *tokens, const void *detail,
                                                size_t detail_size, uint8_t **out, size_t *size) DLF_NOEXCEPT;

/* What a file may keep beside the picture: at most 65536 bytes each; NULL and 0 where there is none. */
typedef struct dlf_metadata {
    size_t struct_size;
    const void *exif; /* begins with TIFF's "II*\0" or "MM\0*", without JPEG's "Exif\0\0" */
    size_t exif_size;
    const void *xmp; /* a packet in UTF-8 */
    size_t xmp_size;
    /* Version 0.1 ends here. */
} dlf_metadata;

/* Find the metadata of a file. Their checksums have been checked, their content has not: it is as hostile as the file.
 *  data      hostile; size bytes
 *  metadata  receives pointers into `data`; unchanged on failure
 *  message   as that of dlf_file_parse
 * Returns as dlf_file_parse, without limits of the image. */
DLF_NODISCARD DLF_API dlf_result dlf_metadata_read(const void *data, size_t size, dlf_metadata *metadata, char *message,
                                                   size_t message_size) DLF_NOEXCEPT;

/* Copy a file with other metadata in the place of all that it has; the picture stays as it is. Without any metadata the file is as
 * dlf_encode writes it.
 *  data      hostile; size bytes
 *  out       *out receives a buffer of *out_size bytes, to be released with dlf_free; unchanged on failure
 *  message   as that of dlf_file_parse
 * Returns as dlf_metadata_read, INVALID_ARGUMENT, OUT_OF_MEMORY, SIZE_LIMIT (metadata). */
DLF_NODISCARD DLF_API dlf_result dlf_metadata_replace(const void *data, size_t size, const dlf_metadata *metadata, uint8_t **out,
                                                      size_t *out_size, char *message, size_t message_size) DLF_NOEXCEPT;

/* Unpack the tokens of a file that dlf_file_parse accepted; dlf_tokens_decode has coded ones.
 *  packed    hostile; at least ceil(count * token_bits / 8) bytes
 *  tokens    receives count tokens */
DLF_NODISCARD DLF_API dlf_result dlf_tokens_unpack(const void *packed, size_t count, uint32_t token_bits,
                                                   uint16_t *tokens) DLF_NOEXCEPT;

/* ------------------------------------------------------------------------------------- entropy model */

/* The entropy model of one bundle (entropy.bin): codebook, CDFs, and the integer four-part prior. Immutable;
 * it keeps the memory that coding needs, from one image to the next, for as many threads as used it at the same time. */
typedef struct dlf_entropy dlf_entropy;

typedef struct dlf_entropy_info {
    size_t struct_size;
    uint32_t channels;      /* of the detail latent, a multiple of 4 */
    uint32_t codebook_size; /* entries */
    uint32_t codebook_dim;
    uint32_t token_bits;   /* ceil(log2(codebook_size)), at least 1 */
    uint32_t cdfs;         /* number of CDFs */
    uint32_t coded_tokens; /* 1 if it has frequencies of tokens, by which all its files code them; else 0 */
    const char *isa;       /* what the prior runs on: "scalar", "avx2", "avx512" or "neon"; a static string */
    /* Version 0.1 ends here. */
} dlf_entropy_info;

/* Read an entropy.bin; the data are copied.
 * The prior runs on the best instructions that the processor has. The environment variable DLF_ISA=scalar|avx2|avx512|neon
 * forces one ("avx512" takes AVX-512 with BW and VNNI); results do not depend on it. Any other value, and one that the
 * processor does not have, is refused as INVALID_ARGUMENT.
 *  data      hostile
 *  out       *out receives the model, to be released with dlf_entropy_free; unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT, BUNDLE_BROKEN, BUNDLE_FOREIGN, OUT_OF_MEMORY. */
DLF_NODISCARD DLF_API dlf_result dlf_entropy_open(const void *data, size_t size, dlf_entropy **out) DLF_NOEXCEPT;
DLF_API void dlf_entropy_free(dlf_entropy *entropy) DLF_NOEXCEPT; /* NULL is allowed */
DLF_API void dlf_entropy_get_info(const dlf_entropy *entropy, dlf_entropy_info *info) DLF_NOEXCEPT;

/* Nearest codebook entry (cosine) of each latent token; ties go to the lowest index.
 *  z         (tiles, codebook_dim, 32), of any length: it need not be normalised
 *  tokens    receives (tiles, 32)
 * Returns DLF_OK, INVALID_ARGUMENT (a z that is not finite). */
DLF_NODISCARD DLF_API dlf_result dlf_vq_lookup(const dlf_entropy *entropy, const float *z, size_t tiles,
                                               uint16_t *tokens) DLF_NOEXCEPT;

/* The codebook's unit vectors for tokens: the inverse of dlf_vq_lookup.
 *  tokens    hostile; (tiles, 32)
 *  z_hat     receives (tiles, codebook_dim, 32)
 * Returns DLF_OK, STREAM_CORRUPT (a token that the codebook does not have). */
DLF_NODISCARD DLF_API dlf_result dlf_vq_embed(const dlf_entropy *entropy, const uint16_t *tokens, size_t tiles,
                                              float *z_hat) DLF_NOEXCEPT;

/* Quantise and code a detail latent with the four-part prior.
 *  y         (channels, height, width), finite; height and width even, from 8 to 65536
 *  y_hat     NULL, or receives the latent as the decoder will see it, same shape. Symbols are clamped to 2^20 in size
 *  out       *out receives a buffer of *size bytes, to be released with dlf_free; unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT (also for a y that is not finite), OUT_OF_MEMORY. */
DLF_NODISCARD DLF_API dlf_result dlf_detail_encode(const dlf_entropy *entropy, const float *y, uint32_t height, uint32_t width,
                                                   float *y_hat, uint8_t **out, size_t *size) DLF_NOEXCEPT;

/* Decode a detail stream; the exact inverse of dlf_detail_encode.
 *  data      hostile
 *  y_hat     receives (channels, height, width); undefined on failure
 * Returns DLF_OK, INVALID_ARGUMENT, TRUNCATED, TRAILING_BYTES, STREAM_CORRUPT, OUT_OF_MEMORY. */
DLF_NODISCARD DLF_API dlf_result dlf_detail_decode(const dlf_entropy *entropy, const void *data, size_t size, uint32_t height,
                                                   uint32_t width, float *y_hat) DLF_NOEXCEPT;

/* Code tokens in front of a detail stream, by the frequencies that a model with coded_tokens has.
 *  tokens    (tiles, 32)
 *  detail    what dlf_detail_encode gave, detail_size bytes
 *  out       *out receives a buffer of *size bytes, to be released with dlf_free; unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT (also for a token that the codebook does not have, and of another model), TRUNCATED and
 * STREAM_CORRUPT (a `detail` that is no stream), OUT_OF_MEMORY. */
DLF_NODISCARD DLF_API dlf_result dlf_tokens_encode(const dlf_entropy *entropy, const uint16_t *tokens, size_t tiles,
                                                   const void *detail, size_t detail_size, uint8_t **out,
                                                   size_t *size) DLF_NOEXCEPT;

/* The exact inverse. For a preview the data may end anywhere behind the tokens; the detail is then of no use.
 *  data         hostile
 *  tokens       receives (tiles, 32); undefined on failure
 *  detail       receives the detail stream, of at most `size` bytes; undefined on failure
 *  detail_size  receives its size; unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT (also of another model), TRUNCATED, STREAM_CORRUPT. */
DLF_NODISCARD DLF_API dlf_result dlf_tokens_decode(const dlf_entropy *entropy, const void *data, size_t size, size_t tiles,
                                                   uint16_t *tokens, uint8_t *detail, size_t *detail_size) DLF_NOEXCEPT;

/* ---------------------------------------------------------------------------------- building blocks
 * The parts of the two functions above, for implementations that run the prior elsewhere, and for tests. */

/* rANS-code symbols, each with the CDF of its index; index -1 is not coded.
 *  symbols, indexes   count of each; symbols at most 2^20 in size, indexes in -1 .. cdfs-1
 *  out       *out receives a buffer of *size bytes, to be released with dlf_free; unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT, OUT_OF_MEMORY. */
DLF_NODISCARD DLF_API dlf_result dlf_rans_encode(const dlf_entropy *entropy, const int32_t *symbols, const int16_t *indexes,
                                                 size_t count, uint8_t **out, size_t *size) DLF_NOEXCEPT;

/* The inverse; symbols of index -1 are 0.
 *  data      hostile
 *  symbols   receives count symbols; undefined on failure
 * Returns DLF_OK, INVALID_ARGUMENT, TRUNCATED, TRAILING_BYTES, STREAM_CORRUPT. */
DLF_NODISCARD DLF_API dlf_result dlf_rans_decode(const dlf_entropy *entropy, const void *data, size_t size,
                                                 const int16_t *indexes, size_t count, int32_t *symbols) DLF_NOEXCEPT;

/* Decodes a stream piece by piece, for a prior that needs one step's symbols to tell the next one's indexes. Not for use by
 * several threads at a time. */
typedef struct dlf_rans_decoder dlf_rans_decoder;

/* Begin to decode.
 *  entropy   kept; must outlive the decoder
 *  data      hostile; kept: must neither change nor go away before the decoder is freed
 *  out       *out receives the decoder, to be released with dlf_rans_decoder_free; unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT, TRUNCATED, STREAM_CORRUPT, OUT_OF_MEMORY. */
DLF_NODISCARD DLF_API dlf_result dlf_rans_decoder_open(const dlf_entropy *entropy, const void *data, size_t size,
                                                       dlf_rans_decoder **out) DLF_NOEXCEPT;

/* Decode the next symbols; those of index -1 are 0. After a failure the decoder is of no more use than to be freed.
 *  symbols   receives count symbols; undefined on failure
 * Returns DLF_OK, INVALID_ARGUMENT, TRUNCATED, STREAM_CORRUPT. */
DLF_NODISCARD DLF_API dlf_result dlf_rans_decoder_get(dlf_rans_decoder *decoder, const int16_t *indexes, size_t count,
                                                      int32_t *symbols) DLF_NOEXCEPT;

/* Whether the stream ends after the symbols decoded so far; none of them may be trusted before it says so.
 * Returns DLF_OK, INVALID_ARGUMENT, TRAILING_BYTES, STREAM_CORRUPT. */
DLF_NODISCARD DLF_API dlf_result dlf_rans_decoder_finish(const dlf_rans_decoder *decoder) DLF_NOEXCEPT;
DLF_API void dlf_rans_decoder_free(dlf_rans_decoder *decoder) DLF_NOEXCEPT; /* NULL is allowed */

/* Entropy parameters of one step of the four-part prior, for every channel and position.
 *  step      0 to 3
 *  r         (channels, height, width) in 1/256: the reconstruction so far, 0 where not yet coded; at step 0 it is not read
 *            and may be NULL
 *  indexes   receives the CDF indexes, -1 where a symbol is not coded
 *  means     receives the means in 1/256 */
DLF_NODISCARD DLF_API dlf_result dlf_prior_step(const dlf_entropy *entropy, int step, const int32_t *r, uint32_t height,
                                                uint32_t width, int16_t *indexes, int16_t *means) DLF_NOEXCEPT;

/* ------------------------------------------------------------------------------------------ bundles
 * A bundle is a folder that holds one model; docs/format.md, section 4. dlf_model_open opens one by itself: these functions are
 * for backends, and for programs that run the stages without a dlf_model. */

/* An open bundle. Its manifest and its entropy.bin have been checked; any other file is checked when it is first asked for. */
typedef struct dlf_bundle dlf_bundle;

/* Strings belong to the bundle. */
typedef struct dlf_bundle_info {
    size_t struct_size;
    const char *name;      /* of the model */
    uint32_t fingerprint;  /* as dlf_file_info has it */
    const char *precision; /* of its stages, such as "fp32" */
    const char *manifest;  /* the text of manifest.json: JSON in UTF-8, which has been checked */
    /* Version 0.1 ends here. */
} dlf_bundle_info;

/* Open a bundle: its manifest and its entropy.bin are read and checked.
 *  folder    of the bundle; a trusted name. What is in it may be hostile. Names in the manifest are plain file names. The files
 *            may be symbolic links, wherever they lead: the size and the SHA-256 in the manifest vouch for them. What is no regular
 *            file is refused at once
 *  out       *out receives the bundle, to be released with dlf_bundle_free, also where this fails: then it can only tell
 *            dlf_bundle_message. NULL where there was no memory for that
 * Returns DLF_OK, INVALID_ARGUMENT (also of the environment variable DLF_ISA, see dlf_entropy_open), OUT_OF_MEMORY,
 * BUNDLE_FOREIGN, BUNDLE_BROKEN. */
DLF_NODISCARD DLF_API dlf_result dlf_bundle_open(const char *folder, dlf_bundle **out) DLF_NOEXCEPT;
DLF_API void dlf_bundle_free(dlf_bundle *bundle) DLF_NOEXCEPT; /* NULL is allowed */

/* Why the bundle's last call failed: the file, the fact and the remedy, in English; "" where it did not. NULL is allowed, and
 * out of memory. The string belongs to the bundle, and is valid until its next call. */
DLF_API const char *dlf_bundle_message(const dlf_bundle *bundle) DLF_NOEXCEPT;

/* Describe an open bundle.
 *  info      filled, up to its struct_size
 * Returns DLF_OK, INVALID_ARGUMENT (a bundle that did not open). */
DLF_NODISCARD DLF_API dlf_result dlf_bundle_get_info(const dlf_bundle *bundle, dlf_bundle_info *info) DLF_NOEXCEPT;

/* The bundle's entropy model, which belongs to it; NULL for a bundle that did not open. */
DLF_API const dlf_entropy *dlf_bundle_entropy(const dlf_bundle *bundle) DLF_NOEXCEPT;

/* The ONNX file of a stage, "analysis", "synthesis", "adaptor" or "generator", after checking it and the external data files that
 * it refers to, all of which the manifest must list.
 *  path      *path receives the path, a string of the bundle that is valid until its next call; unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT, OUT_OF_MEMORY, BUNDLE_BROKEN. */
DLF_NODISCARD DLF_API dlf_result dlf_bundle_stage(dlf_bundle *bundle, const char *stage, const char **path) DLF_NOEXCEPT;

/* What a stage computes, as a digest: the SHA-256, in hexadecimal, of a line "SHA-256 NAME" for its ONNX file and for each
 * external data file, sorted by name. The external data are not read: their hashes are the manifest's.
 *  digest    *digest receives it, a string as `path` of dlf_bundle_stage
 * Returns as dlf_bundle_stage. */
DLF_NODISCARD DLF_API dlf_result dlf_bundle_stage_digest(dlf_bundle *bundle, const char *stage, const char **digest) DLF_NOEXCEPT;

/* Any file that the manifest lists, such as entropy.bin or references.npz, after checking it.
 *  path      as `path` of dlf_bundle_stage
 * Returns as dlf_bundle_stage. */
DLF_NODISCARD DLF_API dlf_result dlf_bundle_file(dlf_bundle *bundle, const char *name, const char **path) DLF_NOEXCEPT;

enum { DLF_PREPARE_ENCODE = 1, DLF_PREPARE_DECODE = 2 };

/* Whether images of one size can be encoded, or decoded, together within a limit of memory: by what the manifest says that this
 * took where the bundle was exported. A context asks this itself before it runs a stage.
 *  backend   its name, such as "openvino"; one for which the manifest says nothing is never refused
 *  what      DLF_PREPARE_ENCODE or DLF_PREPARE_DECODE
 *  limit     bytes of the whole process at its peak; 0: what this machine, and the control groups of this process, leave it
 *  release   in: 1 if every stage is released once it has run, else 0; out: 1 if that is also needed for the images to fit
 * Returns DLF_OK, INVALID_ARGUMENT, OUT_OF_MEMORY: they do not fit even so, and the message says what does. */
DLF_NODISCARD DLF_API dlf_result dlf_bundle_check_memory(dlf_bundle *bundle, const char *backend, uint32_t what, uint32_t width,
                                                         uint32_t height, uint32_t images, uint64_t limit,
                                                         uint32_t *release) DLF_NOEXCEPT;

/* Check the text of a manifest.json, as dlf_bundle_open does, without the bundle's other files.
 *  data      hostile; size bytes
 *  message   NULL, or receives the reason of a refusal, cut to message_size bytes with the 0 at the end
 * Returns DLF_OK, INVALID_ARGUMENT, OUT_OF_MEMORY, BUNDLE_FOREIGN, BUNDLE_BROKEN. */
DLF_NODISCARD DLF_API dlf_result dlf_manifest_check(const void *data, size_t size, char *message,
                                                    size_t message_size) DLF_NOEXCEPT;

/* ---------------------------------------------------------------------------------------------- log */

typedef enum dlf_log_level {
    DLF_LOG_INFO = 1, /* which model was opened, and what runs it */
    DLF_LOG_DEBUG = 2 /* which stage is being loaded, and how long each step of a call took */
} dlf_log_level;

/* Receives a line, without its end, which is valid during the call. It may be called by any thread that calls the library,
 * and by several at a time. It must not throw, nor call this library. */
typedef void (*dlf_log_function)(void *user, dlf_log_level level, const char *message);

/* Have what the library does told to `function`; NULL for silence, as it is at the start. Refusals are not logged: they are
 * results. Any thread may call it at any time; when it returns, the former function is no longer running.
 *  user      handed to the function; may be NULL; must live until another function is set */
DLF_API void dlf_set_log(dlf_log_function function, void *user) DLF_NOEXCEPT;

/* ----------------------------------------------------------------------------------------- backends
 * A backend runs the stages of a bundle, which are ONNX files. Without one of the application's own, the library runs them
 * on the CPU with OpenVINO, or on an NVIDIA GPU with TensorRT, which it looks for at run time. */

#define DLF_MAX_RANK 8
#define DLF_MAX_OUTPUTS 8

/* A named array of float32. */
typedef struct dlf_tensor {
    const char *name;
    const float *data; /* dense, row-major */
    size_t rank;       /* at most DLF_MAX_RANK */
    size_t shape[DLF_MAX_RANK];
} dlf_tensor;

/* A backend of the application's own: functions, and the data that they get as `user`. All but `user`, `device` and `version`
 * are set. Functions are called by any thread, run and release by several at a time, also on one stage; they must not throw.
 *
 * Those that fail return any result but DLF_OK and may write a reason into `message`: text that ends with a 0, in
 * `message_size` bytes (at least 256), empty when they are called. OUT_OF_MEMORY and BUNDLE_BROKEN are passed on to the
 * application, all other results as BACKEND_FAILED. */
typedef struct dlf_backend {
    size_t struct_size;
    const char *name;    /* for messages; this string and the next two are copied */
    const char *device;  /* what it runs on, or NULL */
    const char *version; /* of its library, or NULL */
    void *user;          /* must live until the model and its contexts are freed */

    /* Load the stage named "analysis", "synthesis", "adaptor", "generator" or "generator_base" of a bundle. dlf_bundle_stage gives its ONNX file,
     * dlf_bundle_stage_digest tells what it computes; each checks the files that it reads. The bundle is for use during the
     * call. What these functions return may be returned as it is: of BUNDLE_BROKEN without a message the application gets the
     * bundle's. *loaded receives what is then handed to the others. A model calls load by one thread at a time. */
    dlf_result (*load)(void *user, dlf_bundle *bundle, const char *stage, void **loaded, char *message, size_t message_size);

    /* Run a stage on `input_count` inputs. Fills `outputs`, at most DLF_MAX_OUTPUTS, with all that the stage gives, and sets
     * *output_count. Names, shapes and data stay the backend's, and valid until `release` of *run. */
    dlf_result (*run)(void *user, void *loaded, const dlf_tensor *inputs, size_t input_count, dlf_tensor *outputs,
                      size_t *output_count, void **run, char *message, size_t message_size);

    /* The outputs of a run that succeeded are no longer needed. */
    void (*release)(void *user, void *loaded, void *run);

    /* A stage is no longer needed; no run of it is unreleased. */
    void (*unload)(void *user, void *loaded);

    /* 1: run the whole generator, as a backend on a GPU should. 0: where the processor and the bundle allow, run the stage
     * "generator_base" in its place, after which libdlf computes the rest on the CPU, in fewer products. */
    uint32_t whole_generator;
    /* Version 0.1 ends here. */
} dlf_backend;

/* ------------------------------------------------------------------------------------------- models */

/* A bundle and the backend that runs its stages. Once open it never changes, and any number of threads may use it, each through
 * a context of its own. Stages are loaded when they are first needed: a program that only encodes never loads the decoder. */
typedef struct dlf_model dlf_model;

typedef struct dlf_model_options {
    size_t struct_size;
    uint32_t threads;           /* CPU threads of the built-in backend, and at most as many of libdlf's own for the generator; 0:
                                   as many as it chooses, and one for each processor that may be used */
    uint32_t low_memory;        /* 1: drop each stage once it has run, to load it again for the next image */
    const dlf_backend *backend; /* the application's own; NULL: the built-in one. The table is copied */
    /* The built-in backend's library, libopenvino_c, as a file or as the folder that holds it; NULL: what the environment
     * variable DLF_OPENVINO says in the same way, else where the dynamic linker finds libopenvino_c.so. Trusted: it is loaded.
     * (Of the wheel from PyPI it is the folder openvino/libs in site-packages.) */
    const char *openvino;
    /* Not NULL: the stages run on the first NVIDIA GPU instead, in TensorRT or TensorRT-RTX (whichever the library was built
     * for: libnvinfer or libtensorrt_rtx), which is at this file or in this folder; "": where the environment variable
     * DLF_TENSORRT says in the same way, else where the dynamic linker finds it. Trusted: it is loaded. Not read where
     * `backend` is set. Engines are never built here, which takes minutes: they are those that
     * `python -m dlf.export.engine` keeps in the user's cache folder. */
    const char *tensorrt;
    /* Not NULL: of a folder of several models, the one is opened that wrote the file of this header, which dlf_file_parse gave;
     * NULL: the one of the highest rate, as the bundles tell it. Read during the call. */
    const dlf_file_info *file;
    /* Version 0.1 ends here. */
} dlf_model_options;

/* Strings belong to the model. */
typedef struct dlf_model_info {
    size_t struct_size;
    const char *name;           /* as the bundle says */
    uint32_t fingerprint;       /* as dlf_file_info has it: of the files that it writes and reads */
    const char *precision;      /* of its stages, such as "fp32" */
    const char *backend;        /* such as "openvino" */
    const char *backend_device; /* "" where it is not known; the next likewise */
    const char *backend_version;
    /* Version 0.1 ends here. */
} dlf_model_info;

/* Open a bundle as dlf_bundle_open does, and start the backend.
 *  folder    of the bundle, or one whose sub-folders are bundles: of one model or of several (`file` of the options tells which is
 *            opened), each in one precision or in several: then the one is opened
 *            that the backend runs fastest on this processor (with an application's own backend of a name that dlf does not know,
 *            the most exact: fp32, fp16, int8). Each of them decodes the files of the others. A trusted name. What is in a bundle
 *            may be hostile as far as the library itself reads it: manifest and entropy.bin. The stages are read by the
 *            backend, whose parsers need not be made for hostile files.
 *  options   NULL for the defaults
 *  out       *out receives the model, to be released with dlf_model_free, also where this fails: then it can only tell
 *            dlf_model_message. NULL where there was no memory for that
 * Returns DLF_OK, INVALID_ARGUMENT, OUT_OF_MEMORY, BUNDLE_FOREIGN, BUNDLE_BROKEN, BACKEND_MISSING, BACKEND_FAILED, and WRONG_MODEL:
 * of several models, none wrote the file. */
DLF_NODISCARD DLF_API dlf_result dlf_model_open(const char *folder, const dlf_model_options *options,
                                                dlf_model **out) DLF_NOEXCEPT;

/* Release a model, before or after its contexts: they keep what they need of it. NULL is allowed. */
DLF_API void dlf_model_free(dlf_model *model) DLF_NOEXCEPT;

/* Why dlf_model_open failed: the file, the fact and the remedy, in English; "" where it did not. NULL is allowed, and out of
 * memory. The string belongs to the model. */
DLF_API const char *dlf_model_message(const dlf_model *model) DLF_NOEXCEPT;

/* Describe an open model.
 *  info      filled, up to its struct_size
 * Returns DLF_OK, INVALID_ARGUMENT (a model that did not open). */
DLF_NODISCARD DLF_API dlf_result dlf_model_get_info(const dlf_model *model, dlf_model_info *info) DLF_NOEXCEPT;

/* The model's entropy model, which belongs to it; NULL for a model that did not open. */
DLF_API const dlf_entropy *dlf_model_entropy(const dlf_model *model) DLF_NOEXCEPT;

/* ----------------------------------------------------------------------------------------- contexts */

/* What one thread needs to encode and decode: memory, kept from one image to the next, and the last message. */
typedef struct dlf_context dlf_context;

/* Where a context's memory comes from: pixels in floating point, latents, symbols, streams. Not from it come buffers that are
 * handed over (see dlf_free), models, short-lived texts, and what the backend takes. */
typedef struct dlf_allocator {
    size_t struct_size;
    void *user; /* must live until the context is freed; may be NULL */
    /* `size` bytes (not 0) at a multiple of `alignment` (a power of two, at most 64), or NULL. Must not throw. */
    void *(*allocate)(void *user, size_t size, size_t alignment);
    /* Takes back what allocate gave for `size`; never NULL. Must not throw. */
    void (*release)(void *user, void *memory, size_t size);
    /* Version 0.1 ends here. */
} dlf_allocator;

typedef struct dlf_context_options {
    size_t struct_size;
    const dlf_limits *limits;       /* the largest image that is encoded or decoded; NULL for the defaults; copied */
    const dlf_allocator *allocator; /* NULL: the C++ library's; copied */
    uint64_t max_memory;            /* bytes that the context may hold at a time, of what an allocator would give; more ends in
                                       OUT_OF_MEMORY; 0: no limit */
    uint64_t memory_limit; /* bytes that the whole process may hold at its peak, as dlf_bundle_check_memory has them: stages
                              are released once they have run where an image does not fit otherwise */
    uint32_t preview;      /* 1: dlf_decode and dlf_decode_into give previews: the image that a file's tokens alone tell,
                              with a detail latent of zeros. The file may be cut off anywhere behind its tokens, so that
                              no checksum is checked: a damaged file gives another picture */
    /* Version 0.1 ends here. */
} dlf_context_options;

/* Create a context of an open model.
 *  options   NULL for the defaults
 *  out       *out receives the context, to be released with dlf_context_free; unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT (also a model that did not open), OUT_OF_MEMORY. */
DLF_NODISCARD DLF_API dlf_result dlf_context_create(const dlf_model *model, const dlf_context_options *options,
                                                    dlf_context **out) DLF_NOEXCEPT;
DLF_API void dlf_context_free(dlf_context *context) DLF_NOEXCEPT; /* NULL is allowed */

/* Why the context's last call failed: the fact and the remedy, in English; "" where it did not. The string belongs to the
 * context, and is valid until its next call. */
DLF_API const char *dlf_context_message(const dlf_context *context) DLF_NOEXCEPT;

/* Load stages now instead of with the first image, so that what is wrong with them shows at the start.
 *  what      DLF_PREPARE_ENCODE, DLF_PREPARE_DECODE, or both
 * Returns DLF_OK, INVALID_ARGUMENT, OUT_OF_MEMORY, BUNDLE_BROKEN, BACKEND_FAILED. */
DLF_NODISCARD DLF_API dlf_result dlf_context_prepare(dlf_context *context, uint32_t what) DLF_NOEXCEPT;

/* ---------------------------------------------------------------------------------- encode and decode */

typedef enum dlf_pixel_format {
    DLF_PIXELS_RGB8 = 0, /* red, green, blue; 8 bits each, sRGB */
    DLF_PIXELS_GRAY8 = 1 /* 8 bits; for encoding alone, as three equal channels */
} dlf_pixel_format;

typedef struct dlf_image {
    size_t struct_size;
    uint32_t width, height;
    uint32_t format; /* a dlf_pixel_format */
    size_t stride;   /* bytes from a row to the next; 0: rows follow each other without a gap */
    uint8_t *pixels; /* the upper left one; encoding only reads them */
    /* Version 0.1 ends here. */
} dlf_image;

typedef struct dlf_encode_options {
    size_t struct_size;
    uint32_t no_checksum; /* 1: leave out the file's checksum (2 bytes); some damage then decodes to a wrong picture */
    /* Version 0.1 ends here. */
} dlf_encode_options;

/* Encode an image as a .dlf file.
 *  image     of any size within the context's limits; its values are never refused
 *  options   NULL for the defaults
 *  out       *out receives a buffer of *size bytes, to be released with dlf_free; unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT, OUT_OF_MEMORY, SIZE_LIMIT, IMAGE (no pixels, an unknown format, a stride below a row),
 * BUNDLE_BROKEN, BACKEND_FAILED. */
DLF_NODISCARD DLF_API dlf_result dlf_encode(dlf_context *context, const dlf_image *image, const dlf_encode_options *options,
                                            uint8_t **out, size_t *size) DLF_NOEXCEPT;

/* The same into the caller's buffer.
 *  out       receives the file; unchanged on failure. NULL is allowed where *size is 0
 *  size      in: the buffer's bytes; out: the file's, also where the buffer is too small. A buffer of dlf_encode_bound bytes is
 *            always large enough; else the second call encodes again. Unchanged on other failures
 * Returns as dlf_encode, and BUFFER_TOO_SMALL. */
DLF_NODISCARD DLF_API dlf_result dlf_encode_into(dlf_context *context, const dlf_image *image, const dlf_encode_options *options,
                                                 void *out, size_t *size) DLF_NOEXCEPT;

/* The most bytes that a file of width x height pixels can have; 0 for a size that no file can hold, or a model that did not open.
 * Files are some hundred times smaller. */
DLF_API size_t dlf_encode_bound(const dlf_model *model, uint32_t width, uint32_t height) DLF_NOEXCEPT;

/* Decode a .dlf file. What can be checked without the stages is checked before they run.
 *  data      hostile; size bytes
 *  image     only struct_size is read; all else is set: RGB8, rows without a gap, pixels to be released with dlf_free.
 *            Unchanged on failure
 * Returns DLF_OK, INVALID_ARGUMENT, OUT_OF_MEMORY, NOT_DLF, UNSUPPORTED_VERSION, TRUNCATED, TRAILING_BYTES, CHECKSUM,
 * SIZE_LIMIT, TOKENS_MISSING, WRONG_MODEL, STREAM_CORRUPT, BUNDLE_BROKEN, BACKEND_FAILED. */
DLF_NODISCARD DLF_API dlf_result dlf_decode(dlf_context *context, const void *data, size_t size, dlf_image *image) DLF_NOEXCEPT;

/* The same into the caller's buffer.
 *  data      hostile; size bytes
 *  image     pixels, stride and format (RGB8) are read, width and height set, and stride where it is 0, as soon as they are
 *            known: also where the buffer is too small, for which no stage is run. The bytes between rows are not written;
 *            pixels are undefined on other failures
 *  capacity  bytes at image->pixels, which may be NULL where this is 0; it takes stride * (height - 1) + 3 * width
 * Returns as dlf_decode, IMAGE (another format, a stride below a row), and BUFFER_TOO_SMALL. */
DLF_NODISCARD DLF_API dlf_result dlf_decode_into(dlf_context *context, const void *data, size_t size, dlf_image *image,
                                                 size_t capacity) DLF_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
