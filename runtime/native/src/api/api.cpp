// The C border of the container and the entropy core.
#include "dlf.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "api/api_guard.h"
#include "codec/container.h"
#include "entropy/entropy.h"
#include "entropy/prior.h"
#include "entropy/rans.h"
#include "entropy/tokens.h"
#include "entropy/vq.h"

struct dlf_rans_decoder {
    const dlf_entropy *entropy;
    dlf::RansDecoder decoder;
};

namespace {

using dlf::check;
using dlf::check_struct;
using dlf::guarded;
using dlf::hand_over;

constexpr uint32_t kMaxMapSide = 65536; // of the largest image that a .dlf file can hold

void check_map(uint32_t height, uint32_t width) {
    for (const uint32_t side : {height, width})
        check(side >= 8 && side <= kMaxMapSide && side % 2 == 0);
}

void check_indexes(const dlf_entropy *entropy, const int16_t *indexes, size_t count) {
    const auto cdfs = static_cast<int>(entropy->model.cdfs.size());
    bool valid = true; // without an early end, which would keep a compiler from using vectors
    for (size_t i = 0; i < count; ++i)
        valid &= (-1 <= indexes[i]) & (indexes[i] < cdfs);
    check(valid);
}

} // namespace

const char *dlf_version(void) noexcept { return DLF_VERSION; }

const char *dlf_result_string(dlf_result result) noexcept {
    switch (result) {
    case DLF_OK: return "no error";
    case DLF_ERROR_INVALID_ARGUMENT: return "an argument is out of its range";
    case DLF_ERROR_OUT_OF_MEMORY: return "out of memory";
    case DLF_ERROR_BUFFER_TOO_SMALL: return "the output buffer is too small";
    case DLF_ERROR_NOT_DLF: return "not a .dlf file";
    case DLF_ERROR_UNSUPPORTED_VERSION: return "a .dlf file of an unknown format version";
    case DLF_ERROR_TRUNCATED: return "the data end too early";
    case DLF_ERROR_TRAILING_BYTES: return "bytes are left after the last symbol";
    case DLF_ERROR_CHECKSUM: return "the checksum does not match";
    case DLF_ERROR_SIZE_LIMIT: return "the image is larger than the limits allow";
    case DLF_ERROR_TOKENS_MISSING: return "the file is too short to hold its tokens";
    case DLF_ERROR_WRONG_MODEL: return "the file was written with another model";
    case DLF_ERROR_STREAM_CORRUPT: return "the coded data are damaged";
    case DLF_ERROR_BUNDLE_BROKEN: return "a file of the bundle is missing or damaged";
    case DLF_ERROR_BUNDLE_FOREIGN: return "not a bundle, or one of an unknown format version";
    case DLF_ERROR_BACKEND_MISSING: return "the backend is not installed";
    case DLF_ERROR_BACKEND_FAILED: return "the backend failed";
    case DLF_ERROR_IMAGE: return "the image cannot be read";
    case DLF_ERROR_CHECKPOINT: return "not a DLF checkpoint";
    case DLF_ERROR_EXPORT: return "an exported stage does not do what the model does";
    }
    return "an unknown result";
}

void dlf_free(void *buffer) noexcept { std::free(buffer); }

namespace {

dlf_result parse(const void *data, size_t size, const dlf_limits *limits, dlf::Extent extent, dlf_file_info *info, char *message,
                 size_t message_size) noexcept {
    std::string reason;
    const dlf_result result = guarded(
        [&] {
            check((data != nullptr || size == 0) && info != nullptr && info->struct_size >= sizeof *info);
            check_struct(limits);
            const size_t struct_size = info->struct_size;
            *info = {};
            info->struct_size = struct_size;
            dlf::parse_file(static_cast<const uint8_t *>(data), size, limits == nullptr ? dlf::kDefaultLimits : *limits, extent,
                            *info);
        },
        &reason);
    hand_over(std::move(reason), message, message_size);
    return result;
}

} // namespace

dlf_result dlf_file_parse(const void *data, size_t size, const dlf_limits *limits, dlf_file_info *info, char *message,
                          size_t message_size) noexcept {
    return parse(data, size, limits, dlf::Extent::whole, info, message, message_size);
}

dlf_result dlf_preview_parse(const void *data, size_t size, const dlf_limits *limits, dlf_file_info *info, char *message,
                             size_t message_size) noexcept {
    return parse(data, size, limits, dlf::Extent::preview, info, message, message_size);
}

dlf_result dlf_file_write(const dlf_file_info *info, const uint16_t *tokens, const void *detail, size_t detail_size,
                          uint8_t **out, size_t *size) noexcept {
    return guarded([&] {
        check(info != nullptr && info->struct_size >= sizeof *info);
        check((detail != nullptr || detail_size == 0) && out != nullptr && size != nullptr);
        std::pmr::vector<uint8_t> file{std::pmr::new_delete_resource()};
        dlf::write_file(*info, tokens, static_cast<const uint8_t *>(detail), detail_size, file);
        hand_over(file.data(), file.size(), out, size);
    });
}

dlf_result dlf_metadata_read(const void *data, size_t size, dlf_metadata *metadata, char *message, size_t message_size) noexcept {
    std::string reason;
    const dlf_result result = guarded(
        [&] {
            check((data != nullptr || size == 0) && metadata != nullptr);
            dlf_file_info info = {};
            dlf_metadata found = {};
            dlf::parse_file(static_cast<const uint8_t *>(data), size, dlf::kNoLimits, dlf::Extent::whole, info, found);
            dlf::fill(metadata, found);
        },
        &reason);
    hand_over(std::move(reason), message, message_size);
    return result;
}

dlf_result dlf_metadata_replace(const void *data, size_t size, const dlf_metadata *metadata, uint8_t **out, size_t *out_size,
                                char *message, size_t message_size) noexcept {
    std::string reason;
    const dlf_result result = guarded(
        [&] {
            check((data != nullptr || size == 0) && metadata != nullptr && out != nullptr && out_size != nullptr);
            check_struct(metadata);
            check((metadata->exif != nullptr || metadata->exif_size == 0) &&
                  (metadata->xmp != nullptr || metadata->xmp_size == 0));
            std::pmr::vector<uint8_t> file{std::pmr::new_delete_resource()};
            dlf::replace_metadata(static_cast<const uint8_t *>(data), size, *metadata, file);
            hand_over(file.data(), file.size(), out, out_size);
        },
        &reason);
    hand_over(std::move(reason), message, message_size);
    return result;
}

dlf_result dlf_tokens_unpack(const void *packed, size_t count, uint32_t token_bits, uint16_t *tokens) noexcept {
    return guarded([&] {
        check(count == 0 || (packed != nullptr && tokens != nullptr));
        check(token_bits >= 1 && token_bits <= 16);
        dlf::unpack_tokens(static_cast<const uint8_t *>(packed), count, token_bits, tokens);
    });
}

dlf_result dlf_entropy_open(const void *data, size_t size, dlf_entropy **out) noexcept {
    return guarded([&] {
        check((data != nullptr || size == 0) && out != nullptr);
        *out = new dlf_entropy{dlf::EntropyModel(data, size, dlf::choose_kernels())};
    });
}

void dlf_entropy_free(dlf_entropy *entropy) noexcept { delete entropy; }

void dlf_entropy_get_info(const dlf_entropy *entropy, dlf_entropy_info *info) noexcept {
    const dlf::EntropyModel &model = entropy->model;
    dlf_entropy_info full = {};
    full.channels = static_cast<uint32_t>(model.channels);
    full.codebook_size = static_cast<uint32_t>(model.codebook_size);
    full.codebook_dim = static_cast<uint32_t>(model.codebook_dim);
    full.token_bits = model.token_bits;
    full.coded_tokens = model.coded_tokens() ? 1 : 0;
    full.cdfs = static_cast<uint32_t>(model.cdfs.size());
    full.isa = model.prior.kernels->isa;
    dlf::fill(info, full);
}

dlf_result dlf_vq_lookup(const dlf_entropy *entropy, const float *z, size_t tiles, uint16_t *tokens) noexcept {
    return guarded([&] {
        check(entropy != nullptr && z != nullptr && tokens != nullptr);
        dlf::vq_lookup(entropy->model, z, tiles, tokens);
    });
}

dlf_result dlf_vq_embed(const dlf_entropy *entropy, const uint16_t *tokens, size_t tiles, float *z_hat) noexcept {
    return guarded([&] {
        check(entropy != nullptr && tokens != nullptr && z_hat != nullptr);
        dlf::vq_embed(entropy->model, tokens, tiles, z_hat);
    });
}

dlf_result dlf_detail_encode(const dlf_entropy *entropy, const float *y, uint32_t height, uint32_t width, float *y_hat,
                             uint8_t **out, size_t *size) noexcept {
    return guarded([&] {
        check(entropy != nullptr && y != nullptr && out != nullptr && size != nullptr);
        check_map(height, width);
        entropy->pool.with([&](dlf::DetailScratch &scratch) {
            const size_t count = dlf::encode_detail(entropy->model, y, height, width, y_hat, scratch);
            hand_over(scratch.stream.data() + (scratch.stream.size() - count), count, out, size);
        });
    });
}

dlf_result dlf_detail_decode(const dlf_entropy *entropy, const void *data, size_t size, uint32_t height, uint32_t width,
                             float *y_hat) noexcept {
    return guarded([&] {
        check(entropy != nullptr && (data != nullptr || size == 0) && y_hat != nullptr);
        check_map(height, width);
        entropy->pool.with([&](dlf::DetailScratch &scratch) {
            dlf::decode_detail(entropy->model, {data, size}, height, width, y_hat, scratch);
        });
    });
}

dlf_result dlf_tokens_encode(const dlf_entropy *entropy, const uint16_t *tokens, size_t tiles, const void *detail,
                             size_t detail_size, uint8_t **out, size_t *size) noexcept {
    return guarded([&] {
        check(entropy != nullptr && entropy->model.coded_tokens());
        check((tokens != nullptr || tiles == 0) && detail != nullptr && out != nullptr && size != nullptr);
        const size_t count = tiles * dlf::kTokensPerTile;
        check(std::all_of(tokens, tokens + count, [&](uint16_t token) { return token < entropy->model.codebook_size; }));
        std::pmr::vector<uint8_t> stream{std::pmr::new_delete_resource()};
        dlf::rans_prepend(entropy->model.token_cdfs, tokens, count, static_cast<const uint8_t *>(detail), detail_size, stream);
        hand_over(stream.data(), stream.size(), out, size);
    });
}

dlf_result dlf_tokens_decode(const dlf_entropy *entropy, const void *data, size_t size, size_t tiles, uint16_t *tokens,
                             uint8_t *detail, size_t *detail_size) noexcept {
    return guarded([&] {
        check(entropy != nullptr && entropy->model.coded_tokens());
        check((data != nullptr || size == 0) && (tokens != nullptr || tiles == 0) && detail != nullptr && detail_size != nullptr);
        dlf::RansDecoder decoder(data, size);
        decoder.get_letters(entropy->model.token_cdfs, tiles * dlf::kTokensPerTile, tokens);
        decoder.copy_left(detail);
        *detail_size = decoder.left();
    });
}

dlf_result dlf_rans_encode(const dlf_entropy *entropy, const int32_t *symbols, const int16_t *indexes, size_t count,
                           uint8_t **out, size_t *size) noexcept {
    return guarded([&] {
        check(entropy != nullptr && out != nullptr && size != nullptr);
        check(count == 0 || (symbols != nullptr && indexes != nullptr));
        check_indexes(entropy, indexes, count);
        bool valid = true;
        for (size_t i = 0; i < count; ++i)
            valid &= (indexes[i] < 0) | ((-dlf::kMaxSymbol <= symbols[i]) & (symbols[i] <= dlf::kMaxSymbol));
        check(valid);
        entropy->pool.with([&](dlf::DetailScratch &scratch) {
            const size_t bytes = dlf::rans_encode(entropy->model.cdfs, symbols, indexes, count, scratch.stream);
            hand_over(scratch.stream.data() + (scratch.stream.size() - bytes), bytes, out, size);
        });
    });
}

dlf_result dlf_rans_decode(const dlf_entropy *entropy, const void *data, size_t size, const int16_t *indexes, size_t count,
                           int32_t *symbols) noexcept {
    return guarded([&] {
        check(entropy != nullptr && (data != nullptr || size == 0));
        check(count == 0 || (symbols != nullptr && indexes != nullptr));
        check_indexes(entropy, indexes, count);
        dlf::RansDecoder decoder(data, size);
        decoder.get(entropy->model.cdfs, indexes, count, symbols);
        decoder.finish();
    });
}

dlf_result dlf_rans_decoder_open(const dlf_entropy *entropy, const void *data, size_t size, dlf_rans_decoder **out) noexcept {
    return guarded([&] {
        check(entropy != nullptr && (data != nullptr || size == 0) && out != nullptr);
        *out = new dlf_rans_decoder{entropy, dlf::RansDecoder(data, size)};
    });
}

dlf_result dlf_rans_decoder_get(dlf_rans_decoder *decoder, const int16_t *indexes, size_t count, int32_t *symbols) noexcept {
    return guarded([&] {
        check(decoder != nullptr && (count == 0 || (symbols != nullptr && indexes != nullptr)));
        check_indexes(decoder->entropy, indexes, count);
        decoder->decoder.get(decoder->entropy->model.cdfs, indexes, count, symbols);
    });
}

dlf_result dlf_rans_decoder_finish(const dlf_rans_decoder *decoder) noexcept {
    return guarded([&] {
        check(decoder != nullptr);
        decoder->decoder.finish();
    });
}

void dlf_rans_decoder_free(dlf_rans_decoder *decoder) noexcept { delete decoder; }

dlf_result dlf_prior_step(const dlf_entropy *entropy, int step, const int32_t *r, uint32_t height, uint32_t width,
                          int16_t *indexes, int16_t *means) noexcept {
    return guarded([&] {
        check(entropy != nullptr && step >= 0 && static_cast<size_t>(step) < dlf::kSteps && (step == 0 || r != nullptr));
        check(indexes != nullptr && means != nullptr);
        check_map(height, width);
        entropy->pool.with([&](dlf::DetailScratch &scratch) {
            dlf::prior_step(entropy->model, scratch.prior, static_cast<size_t>(step), r, height, width, indexes, means);
        });
    });
}
