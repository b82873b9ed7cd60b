#include "codec/metadata.h"

#include <string>

#include "support/crc32.h"
#include "support/varint.h"

namespace dlf {
namespace {

constexpr uint8_t kExif = 1, kXmp = 2; // kinds of boxes; other ones are checked and not used

void check_size(const char *name, size_t size) {
    if (size > kMaxMetadata)
        fail(DLF_ERROR_SIZE_LIMIT, std::string("its ") + name + " has " + std::to_string(size) + " bytes, over the limit of " +
                                       std::to_string(kMaxMetadata) + "; leave it out");
}

void write_box(uint8_t kind, const void *content, size_t size, std::pmr::vector<uint8_t> &out) {
    if (size == 0)
        return;
    const size_t start = out.size();
    out.push_back(kind);
    write_varint(out, static_cast<uint32_t>(size - 1));
    const auto *bytes = static_cast<const uint8_t *>(content);
    out.insert(out.end(), bytes, bytes + size);
    const uint32_t crc = crc32(out.data() + start, out.size() - start);
    for (int shift = 0; shift < 32; shift += 8)
        out.push_back(static_cast<uint8_t>(crc >> shift));
}

} // namespace

void read_boxes(const uint8_t *boxes, size_t size, dlf_metadata &metadata) {
    ByteReader reader(boxes, size, DLF_ERROR_STREAM_CORRUPT);
    for (uint8_t last = 0; reader.left() > 0;) {
        const uint8_t *start = boxes + (size - reader.left());
        const uint8_t kind = reader.byte();
        const size_t count = size_t{read_varint(reader, DLF_ERROR_STREAM_CORRUPT)} + 1;
        const uint8_t *content = reader.bytes(count);
        const auto covered = static_cast<size_t>(content + count - start);
        require(reader.value<uint32_t>() == crc32(start, covered), DLF_ERROR_CHECKSUM);
        require(kind > last, DLF_ERROR_STREAM_CORRUPT);
        last = kind;
        if (kind == kExif) {
            check_size("EXIF", count);
            metadata.exif = content;
            metadata.exif_size = count;
        } else if (kind == kXmp) {
            check_size("XMP", count);
            metadata.xmp = content;
            metadata.xmp_size = count;
        }
    }
}

void write_boxes(const dlf_metadata &metadata, std::pmr::vector<uint8_t> &out) {
    check_size("EXIF", metadata.exif_size);
    check_size("XMP", metadata.xmp_size);
    write_box(kExif, metadata.exif, metadata.exif_size, out);
    write_box(kXmp, metadata.xmp, metadata.xmp_size, out);
}

} // namespace dlf
