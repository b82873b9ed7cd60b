#include "codec/payload.h"

#include "entropy/detail_coder.h"
#include "entropy/tokens.h"

namespace dlf {

void write_file(const EntropyModel &model, dlf_file_info info, const uint16_t *tokens, const uint8_t *detail, size_t detail_size,
                std::pmr::vector<uint8_t> &scratch, std::pmr::vector<uint8_t> &out) {
    info.coded_tokens = model.coded_tokens() ? 1 : 0;
    info.token_bits = model.token_bits;
    if (!info.coded_tokens)
        return write_file(info, tokens, detail, detail_size, out);
    const size_t count = tiles_along(info.width) * tiles_along(info.height) * kTokensPerTile;
    rans_prepend(model.token_cdfs, tokens, count, detail, detail_size, scratch);
    write_file(info, nullptr, scratch.data(), scratch.size(), out);
}

std::optional<RansDecoder> read_tokens(const EntropyModel &model, const dlf_file_info &info, const uint8_t *file, Extent extent,
                                       uint16_t *tokens) {
    const uint8_t *payload = file + info.header_bytes;
    const size_t count = size_t{info.tiles} * kTokensPerTile;
    if (info.coded_tokens) {
        RansDecoder decoder(payload, info.detail_bytes);
        decoder.get_letters(model.token_cdfs, count, tokens);
        if (extent == Extent::preview)
            return std::nullopt;
        return decoder;
    }
    unpack_tokens(payload, count, info.token_bits, tokens);
    if (extent == Extent::preview)
        return std::nullopt;
    return RansDecoder(payload + info.token_bytes, info.detail_bytes);
}

size_t file_bound(const EntropyModel &model, size_t down, size_t across) {
    constexpr size_t kMostTokenBits = 16; // packed or coded: an alphabet's symbol has a frequency of at least 2^-16
    return kFrameBytes + down * across * token_bytes_per_tile(kMostTokenBits) +
           detail_bound(model, kDetailPerTile * down, kDetailPerTile * across);
}

} // namespace dlf
