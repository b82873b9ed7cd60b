#include "codec/container.h"

#include <algorithm>
#include <string>

#include "codec/metadata.h"
#include "entropy/tokens.h"
#include "support/byte_reader.h"
#include "support/crc16.h"
#include "support/sha256.h"
#include "support/varint.h"

namespace dlf {
namespace {

constexpr uint8_t kMagic = 0xDF;
constexpr uint8_t kNoChecksum = 0x10;
static_assert(kMaxSide == kVarintEnd);
static_assert(kFrameBytes == 4 + 2 * kVarintBytes + 2);
constexpr size_t kStreamBytes = 4; // of any stream, at least

uint32_t tile_count(uint32_t width, uint32_t height) { return static_cast<uint32_t>(tiles_along(width) * tiles_along(height)); }

std::string size_text(uint32_t width, uint32_t height) { return std::to_string(width) + "x" + std::to_string(height); }

// The fewest bytes after the header.
size_t least_payload(const dlf_file_info &info) {
    return (info.coded_tokens ? kStreamBytes : info.token_bytes) + info.checksum_bytes + info.metadata_bytes;
}

// What was found in a refused file, and what to do.
std::string refusal(dlf_result result, const uint8_t *data, size_t size, const dlf_file_info &info) {
    const std::string incomplete = "it is incomplete, so copy or download it again";
    switch (result) {
    case DLF_ERROR_NOT_DLF:
        if (info.version == 0)
            return "it starts with byte 0x" + hexadecimal(data, 1) + ", not with 0xdf, so it is not a .dlf file";
        return "its header does not spell an image size, so it is damaged or not a .dlf file";
    case DLF_ERROR_UNSUPPORTED_VERSION:
        return "it is of .dlf version " + std::to_string(info.version) + " and this dlf reads versions " +
               std::to_string(kFileVersion) + " to " + std::to_string(kLastFileVersion) + "; it needs another version of dlf";
    case DLF_ERROR_TRUNCATED: return "it ends inside its header, after " + std::to_string(size) + " bytes; " + incomplete;
    case DLF_ERROR_TOKENS_MISSING:
        return "the tokens of a " + size_text(info.width, info.height) + " image, with checksum and metadata, take at least " +
               std::to_string(least_payload(info)) + " bytes after the header and there are " +
               std::to_string(size - info.header_bytes) + "; " + incomplete;
    case DLF_ERROR_CHECKSUM:
        return "its checksum does not match its bytes; it is damaged or cut short, so copy or download it again";
    case DLF_ERROR_STREAM_CORRUPT:
        return "the boxes of its metadata break the rules of the format; it is damaged, so copy or download it again";
    default: return "";
    }
}

void read_file(const uint8_t *data, size_t size, const dlf_limits &limits, Extent extent, dlf_file_info &info,
               dlf_metadata &metadata) {
    ByteReader reader(data, size, DLF_ERROR_TRUNCATED);
    require(reader.byte() == kMagic, DLF_ERROR_NOT_DLF);
    const uint8_t flags = reader.byte();
    info.version = flags >> 5;
    require(kFileVersion <= info.version && info.version <= kLastFileVersion, DLF_ERROR_UNSUPPORTED_VERSION);
    const uint32_t contents = info.version - kFileVersion;
    info.coded_tokens = (contents & kCodedTokens) ? 1 : 0;
    info.has_checksum = (flags & kNoChecksum) ? 0 : 1;
    info.token_bits = (flags & 0x0F) + 1u;
    info.fingerprint = static_cast<uint32_t>(reader.byte() << 8);
    info.fingerprint |= reader.byte();
    info.width = read_varint(reader, DLF_ERROR_NOT_DLF) + 1;
    info.height = read_varint(reader, DLF_ERROR_NOT_DLF) + 1;
    const size_t metadata_bytes = (contents & kMetadata) ? size_t{read_varint(reader, DLF_ERROR_NOT_DLF)} + 1 : 0;
    info.header_bytes = size - reader.left();

    check_size(info.width, info.height, limits);

    info.tiles = tile_count(info.width, info.height);
    info.token_bytes = info.coded_tokens ? 0 : info.tiles * token_bytes_per_tile(info.token_bits);
    if (extent == Extent::whole) {
        info.checksum_bytes = info.has_checksum ? 2 : 0;
        info.metadata_bytes = metadata_bytes;
    }
    require(reader.left() >= least_payload(info), DLF_ERROR_TOKENS_MISSING);
    info.detail_bytes = reader.left() - info.token_bytes - info.checksum_bytes - info.metadata_bytes;
    reader.bytes(info.token_bytes + info.detail_bytes);
    if (info.checksum_bytes != 0)
        require(reader.value<uint16_t>() == crc16(data, size - info.metadata_bytes - info.checksum_bytes), DLF_ERROR_CHECKSUM);
    metadata = {};
    read_boxes(data + (size - info.metadata_bytes), info.metadata_bytes, metadata);
}

void write_header(const dlf_file_info &info, size_t metadata_bytes, std::pmr::vector<uint8_t> &out) {
    const uint32_t version = kFileVersion + (metadata_bytes == 0 ? 0u : kMetadata) + (info.coded_tokens ? kCodedTokens : 0u);
    out.clear();
    out.push_back(kMagic);
    out.push_back(static_cast<uint8_t>(version << 5 | (info.has_checksum ? 0u : kNoChecksum) | (info.token_bits - 1)));
    out.push_back(static_cast<uint8_t>(info.fingerprint >> 8));
    out.push_back(static_cast<uint8_t>(info.fingerprint));
    write_varint(out, info.width - 1);
    write_varint(out, info.height - 1);
    if (metadata_bytes != 0)
        write_varint(out, static_cast<uint32_t>(metadata_bytes - 1));
}

void write_checksum(std::pmr::vector<uint8_t> &out) {
    const uint16_t crc = crc16(out.data(), out.size());
    out.push_back(static_cast<uint8_t>(crc));
    out.push_back(static_cast<uint8_t>(crc >> 8));
}

} // namespace

std::string fingerprint_text(uint32_t fingerprint) {
    const uint8_t bytes[] = {static_cast<uint8_t>(fingerprint >> 8), static_cast<uint8_t>(fingerprint)};
    return hexadecimal(bytes, 2);
}

void check_size(uint32_t width, uint32_t height, const dlf_limits &limits) {
    const std::string image = "the image is " + size_text(width, height) + " pixels, over the limit of ";
    if (std::max(width, height) > limits.max_side)
        fail(DLF_ERROR_SIZE_LIMIT, image + std::to_string(limits.max_side) + " a side; raise it with max_side");
    if (uint64_t{width} * height > limits.max_pixels)
        fail(DLF_ERROR_SIZE_LIMIT, image + std::to_string(limits.max_pixels) + " in all; raise it with max_pixels");
}

void parse_file(const uint8_t *data, size_t size, const dlf_limits &limits, Extent extent, dlf_file_info &info) {
    dlf_metadata unused = {};
    parse_file(data, size, limits, extent, info, unused);
}

void parse_file(const uint8_t *data, size_t size, const dlf_limits &limits, Extent extent, dlf_file_info &info,
                dlf_metadata &metadata) {
    try {
        read_file(data, size, limits, extent, info, metadata);
    } catch (const Failure &failure) {
        if (!failure.message.empty())
            throw;
        fail(failure.result, refusal(failure.result, data, size, info));
    }
}

void write_file(const dlf_file_info &info, const uint16_t *tokens, const uint8_t *detail, size_t detail_size,
                std::pmr::vector<uint8_t> &out) {
    const auto in_range = [](uint32_t value, uint32_t low, uint32_t high) { return low <= value && value <= high; };
    require(in_range(info.width, 1, kMaxSide) && in_range(info.height, 1, kMaxSide) && in_range(info.token_bits, 1, 16) &&
                info.fingerprint <= 0xFFFF && info.has_checksum <= 1 && info.coded_tokens == (tokens == nullptr ? 1 : 0),
            DLF_ERROR_INVALID_ARGUMENT);
    const size_t tiles = info.coded_tokens ? 0 : tile_count(info.width, info.height);
    const size_t tokens_end = tiles * kTokensPerTile;
    require(std::all_of(tokens, tokens + tokens_end, [&](uint16_t token) { return token >> info.token_bits == 0; }),
            DLF_ERROR_INVALID_ARGUMENT);

    write_header(info, 0, out);
    const size_t header_bytes = out.size();
    out.resize(header_bytes + tiles * token_bytes_per_tile(info.token_bits));
    pack_tokens(tokens, tokens_end, info.token_bits, out.data() + header_bytes);
    out.insert(out.end(), detail, detail + detail_size);
    if (info.has_checksum)
        write_checksum(out);
}

void replace_metadata(const uint8_t *data, size_t size, const dlf_metadata &metadata, std::pmr::vector<uint8_t> &out) {
    dlf_file_info info = {};
    parse_file(data, size, kNoLimits, Extent::whole, info);
    std::pmr::vector<uint8_t> boxes(out.get_allocator());
    write_boxes(metadata, boxes);
    write_header(info, boxes.size(), out);
    const uint8_t *picture = data + info.header_bytes;
    out.insert(out.end(), picture, picture + info.token_bytes + info.detail_bytes);
    if (info.has_checksum)
        write_checksum(out);
    out.insert(out.end(), boxes.begin(), boxes.end());
}

} // namespace dlf
