#include "codec/container.h"

#include <algorithm>

#include "support/byte_reader.h"
#include "support/crc16.h"
#include "entropy/tokens.h"

namespace dlf {
namespace {

constexpr uint8_t kMagic = 0xDF;
constexpr uint32_t kVersion = 1;
constexpr uint8_t kNoChecksum = 0x10;
constexpr int kVarintBytes = 3;
static_assert(kMaxSide == 1u << (7 * kVarintBytes));

uint32_t tile_count(uint32_t width, uint32_t height) {
    return static_cast<uint32_t>(tiles_along(width) * tiles_along(height));
}

uint32_t read_varint(ByteReader &reader) {
    uint32_t value = 0;
    for (int i = 0; i < kVarintBytes; ++i) {
        const uint8_t byte = reader.byte();
        value |= uint32_t{byte & 0x7Fu} << (7 * i);
        if (!(byte & 0x80)) {
            require(i == 0 || byte != 0, DLF_ERROR_NOT_DLF); // a longer spelling of the same number
            return value;
        }
    }
    throw Failure{DLF_ERROR_NOT_DLF};
}

void write_varint(std::pmr::vector<uint8_t> &out, uint32_t value) {
    for (; value >= 0x80; value >>= 7)
        out.push_back(static_cast<uint8_t>(value | 0x80));
    out.push_back(static_cast<uint8_t>(value));
}

} // namespace

void parse_file(const uint8_t *data, size_t size, const dlf_limits &limits, dlf_file_info &info) {
    ByteReader reader(data, size, DLF_ERROR_TRUNCATED);
    require(reader.byte() == kMagic, DLF_ERROR_NOT_DLF);
    const uint8_t flags = reader.byte();
    info.version = flags >> 5;
    require(info.version == kVersion, DLF_ERROR_UNSUPPORTED_VERSION);
    info.has_checksum = (flags & kNoChecksum) ? 0 : 1;
    info.token_bits = (flags & 0x0F) + 1u;
    info.fingerprint = static_cast<uint32_t>(reader.byte() << 8);
    info.fingerprint |= reader.byte();
    info.width = read_varint(reader) + 1;
    info.height = read_varint(reader) + 1;
    info.header_bytes = size - reader.left();

    require(std::max(info.width, info.height) <= limits.max_side, DLF_ERROR_SIZE_LIMIT);
    require(uint64_t{info.width} * info.height <= limits.max_pixels, DLF_ERROR_SIZE_LIMIT);

    info.tiles = tile_count(info.width, info.height);
    info.token_bytes = info.tiles * token_bytes_per_tile(info.token_bits);
    info.checksum_bytes = info.has_checksum ? 2 : 0;
    require(reader.left() >= info.token_bytes + info.checksum_bytes, DLF_ERROR_TOKENS_MISSING);
    info.detail_bytes = reader.left() - info.token_bytes - info.checksum_bytes;
    if (info.has_checksum) {
        reader.bytes(info.token_bytes + info.detail_bytes);
        require(reader.value<uint16_t>() == crc16(data, size - 2), DLF_ERROR_CHECKSUM);
    }
}

void write_file(const dlf_file_info &info, const uint16_t *tokens, const uint8_t *detail, size_t detail_size,
                std::pmr::vector<uint8_t> &out) {
    const auto in_range = [](uint32_t value, uint32_t low, uint32_t high) { return low <= value && value <= high; };
    require(in_range(info.width, 1, kMaxSide) && in_range(info.height, 1, kMaxSide) && in_range(info.token_bits, 1, 16) &&
                info.fingerprint <= 0xFFFF && info.has_checksum <= 1,
            DLF_ERROR_INVALID_ARGUMENT);
    const size_t tiles = tile_count(info.width, info.height);
    const size_t tokens_end = tiles * kTokensPerTile;
    require(std::all_of(tokens, tokens + tokens_end, [&](uint16_t token) { return token >> info.token_bits == 0; }),
            DLF_ERROR_INVALID_ARGUMENT);

    out.clear();
    out.push_back(kMagic);
    out.push_back(static_cast<uint8_t>(kVersion << 5 | (info.has_checksum ? 0u : kNoChecksum) | (info.token_bits - 1)));
    out.push_back(static_cast<uint8_t>(info.fingerprint >> 8));
    out.push_back(static_cast<uint8_t>(info.fingerprint));
    write_varint(out, info.width - 1);
    write_varint(out, info.height - 1);

    const size_t header_bytes = out.size();
    out.resize(header_bytes + tiles * token_bytes_per_tile(info.token_bits));
    pack_tokens(tokens, tokens_end, info.token_bits, out.data() + header_bytes);
    out.insert(out.end(), detail, detail + detail_size);
    if (info.has_checksum) {
        const uint16_t crc = crc16(out.data(), out.size());
        out.push_back(static_cast<uint8_t>(crc));
        out.push_back(static_cast<uint8_t>(crc >> 8));
    }
}

size_t file_bound(size_t tiles, uint32_t token_bits, size_t detail_size) {
    constexpr size_t kFixedBytes = 4, kChecksumBytes = 2;
    return kFixedBytes + 2 * kVarintBytes + tiles * token_bytes_per_tile(token_bits) + detail_size + kChecksumBytes;
}

} // namespace dlf
