// A .dlf file up to the neural stages: the container, the tokens, the detail stream.
#include "target.h"

#include "support/crc16.h"

namespace {

constexpr dlf_limits kLimits = {sizeof(dlf_limits), 1024 * 1024, 2048}; // keeps an input within milliseconds

dlf_result parse(const std::vector<uint8_t> &file, dlf_file_info &info) {
    info = {};
    info.struct_size = sizeof info;
    char message[64] = "?";
    const dlf_result result = dlf_file_parse(file.data(), file.size(), &kLimits, &info, message, sizeof message);
    CHECK((result == DLF_OK) == (message[0] == 0));
    return result;
}

// Without its metadata a file is what its parts assemble to; with them, it is read again.
void strip(const std::vector<uint8_t> &file, const uint8_t *written, size_t size) {
    dlf_metadata metadata = {}, again = {};
    metadata.struct_size = again.struct_size = sizeof metadata;
    const dlf_metadata none = again;
    CHECK(dlf_metadata_read(file.data(), file.size(), &metadata, nullptr, 0) == DLF_OK);
    uint8_t *stripped = nullptr, *dressed = nullptr;
    size_t stripped_size = 0, dressed_size = 0;
    CHECK(dlf_metadata_replace(file.data(), file.size(), &none, &stripped, &stripped_size, nullptr, 0) == DLF_OK);
    CHECK(stripped_size == size && std::memcmp(stripped, written, size) == 0);
    CHECK(dlf_metadata_replace(stripped, stripped_size, &metadata, &dressed, &dressed_size, nullptr, 0) == DLF_OK);
    CHECK(dlf_metadata_read(dressed, dressed_size, &again, nullptr, 0) == DLF_OK);
    CHECK(again.exif_size == metadata.exif_size && again.xmp_size == metadata.xmp_size);
    dlf_free(stripped);
    dlf_free(dressed);
}

// A file has one spelling: what its parts assemble to are its own bytes.
void write_again(const std::vector<uint8_t> &file, const dlf_file_info &info, const uint16_t *tokens, const uint8_t *detail) {
    uint8_t *written = nullptr;
    size_t size = 0;
    CHECK(dlf_file_write(&info, tokens, detail, info.detail_bytes, &written, &size) == DLF_OK);
    if (info.metadata_bytes == 0)
        CHECK(size == file.size() && std::memcmp(written, file.data(), size) == 0);
    strip(file, written, size);
    dlf_free(written);
}

// Tokens and detail have one stream too.
void put_again(const dlf_entropy *model, const uint8_t *stream, const dlf_file_info &info, const uint16_t *tokens,
               const uint8_t *detail, size_t detail_size) {
    uint8_t *written = nullptr;
    size_t size = 0;
    CHECK(dlf_tokens_encode(model, tokens, info.tiles, detail, detail_size, &written, &size) == DLF_OK);
    CHECK(size == info.detail_bytes && std::memcmp(written, stream, size) == 0);
    dlf_free(written);
}

} // namespace

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    std::vector<uint8_t> file(data, data + size);
    dlf_file_info info;
    dlf_result result = parse(file, info);
    if (result == DLF_ERROR_CHECKSUM) { // which a mutation seldom gets right: put it right, and go on
        const size_t end = size - info.metadata_bytes - info.checksum_bytes;
        const uint16_t crc = dlf::crc16(file.data(), end);
        if (info.checksum_bytes != 0) {
            file[end] = static_cast<uint8_t>(crc);
            file[end + 1] = static_cast<uint8_t>(crc >> 8);
        }
        result = parse(file, info);
        CHECK(result == DLF_OK || info.metadata_bytes != 0);
    }
    if (result != DLF_OK)
        return 0;
    CHECK(info.header_bytes + info.token_bytes + info.detail_bytes + info.checksum_bytes + info.metadata_bytes == size);
    CHECK(info.width <= kLimits.max_side && info.height <= kLimits.max_side);

    std::vector<uint16_t> tokens(size_t{info.tiles} * 32);
    const uint8_t *payload = file.data() + info.header_bytes;
    const uint8_t *detail = payload + info.token_bytes;
    size_t detail_size = info.detail_bytes;
    std::vector<uint8_t> taken(detail_size);
    const dlf_entropy *model = info.coded_tokens ? coding_model() : conformance_model();
    if (!info.coded_tokens) {
        CHECK(dlf_tokens_unpack(payload, tokens.size(), info.token_bits, tokens.data()) == DLF_OK);
        write_again(file, info, tokens.data(), detail);
    } else {
        write_again(file, info, nullptr, payload);
        if (dlf_tokens_decode(model, payload, detail_size, info.tiles, tokens.data(), taken.data(), &detail_size) != DLF_OK)
            return 0;
        put_again(model, payload, info, tokens.data(), taken.data(), detail_size);
        detail = taken.data();
    }
    const dlf_entropy_info about = entropy_info(model);
    std::vector<float> z_hat(tokens.size() * about.codebook_dim);
    static_cast<void>(dlf_vq_embed(model, tokens.data(), info.tiles, z_hat.data())); // any result will do
    const uint32_t height = (info.height + 255) / 256 * 8, width = (info.width + 255) / 256 * 8;
    std::vector<float> y_hat(size_t{about.channels} * height * width);
    static_cast<void>(dlf_detail_decode(model, detail, detail_size, height, width, y_hat.data()));
    return 0;
}
