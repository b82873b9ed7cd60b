// The entropy core for WebAssembly: what core.js calls, around the same sources that libdlf is built of.
//
// WebAssembly toolchains have no C++ exceptions that every browser runs. This module is compiled with -fignore-exceptions: code that
// catches is left out, and a throw calls __cxa_throw below, which leaves the module through a JavaScript exception. No destructor
// runs then, so core.js drops the instance after a refusal and makes a fresh one.
#include <cstdlib>
#include <cstring>
#include <string>

#include "codec/payload.h"
#include "codec/pixels.h"
#include "entropy/detail_coder.h"
#include "entropy/prior_kernels.h"
#include "entropy/vq.h"
#include "support/failure.h"

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

extern "C" {
// Throws a DLFError in JavaScript; an empty message stands for the code's own.
[[noreturn]] __attribute__((import_module("dlf"), import_name("refuse"))) void refuse(int code, const char *message, size_t size);

void *__cxa_allocate_exception(size_t size) noexcept { return std::malloc(size); }

// The library throws nothing but a Failure; what the standard library would throw, such as std::bad_alloc, is a trap here.
[[noreturn]] void __cxa_throw(void *thrown, void *, void (*)(void *)) {
    const auto *failure = static_cast<const dlf::Failure *>(thrown);
    refuse(failure->result, failure->message.data(), failure->message.size());
}
}

namespace {

struct Core {
    Core(const void *data, size_t size) : model(data, size, dlf::kSimd128Kernels) {}

    dlf::EntropyModel model;
    dlf::DetailScratch scratch{};
    std::vector<uint16_t> tokens{};
    std::optional<dlf::RansDecoder> detail{}; // of the file whose tokens were read last
    std::pmr::vector<uint8_t> stream{std::pmr::new_delete_resource()}, file{std::pmr::new_delete_resource()};
};

dlf::AlignedVector<float> batch;

constexpr uint32_t kMaxPixels = 1u << 26, kMaxSide = 1u << 14; // core.js allows no more

dlf_file_info parsed(const uint8_t *data, size_t size, dlf::Extent extent, uint32_t max_pixels, uint32_t max_side) {
    dlf_limits limits{};
    limits.struct_size = sizeof limits;
    limits.max_pixels = max_pixels;
    limits.max_side = max_side;
    dlf_file_info info{};
    info.struct_size = sizeof info;
    dlf::parse_file(data, size, limits, extent, info);
    return info;
}

dlf::Extent extent(uint32_t preview) { return preview != 0 ? dlf::Extent::preview : dlf::Extent::whole; }

} // namespace

EXPORT(allocate) void *allocate(size_t size) { return std::malloc(size); }
EXPORT(release) void release(void *memory) { std::free(memory); }

// Returns version, width, height, fingerprint, token bits, has checksum; bytes of header, tokens, detail, checksum; tiles, coded tokens.
EXPORT(parse) const uint32_t *parse(const uint8_t *data, size_t size, uint32_t preview, uint32_t max_pixels, uint32_t max_side) {
    static uint32_t found[12];
    const dlf_file_info info = parsed(data, size, extent(preview), max_pixels, max_side);
    const size_t facts[] = {info.version,      info.width,          info.height,       info.fingerprint,
                            info.token_bits,   info.has_checksum,   info.header_bytes, info.token_bytes,
                            info.detail_bytes, info.checksum_bytes, info.tiles,        info.coded_tokens};
    for (size_t i = 0; i < 12; ++i)
        found[i] = static_cast<uint32_t>(facts[i]);
    return found;
}

EXPORT(open_model) Core *open_model(const void *data, size_t size) { return new Core(data, size); }
EXPORT(channels) uint32_t channels(const Core *core) { return static_cast<uint32_t>(core->model.channels); }
EXPORT(codebook_dim) uint32_t codebook_dim(const Core *core) { return static_cast<uint32_t>(core->model.codebook_dim); }
EXPORT(token_bits) uint32_t token_bits(const Core *core) { return core->model.token_bits; }
EXPORT(coded_tokens) uint32_t coded_tokens(const Core *core) { return core->model.coded_tokens() ? 1 : 0; }

// The tokens of a file of this model to z_hat (tiles, codebook_dim, 32); returns the tokens (tiles, 32).
EXPORT(embed) const uint16_t *embed(Core *core, const uint8_t *data, size_t size, uint32_t preview, float *z_hat) {
    const dlf_file_info info = parsed(data, size, extent(preview), kMaxPixels, kMaxSide);
    core->tokens.resize(info.tiles * dlf::kTokensPerTile);
    core->detail = dlf::read_tokens(core->model, info, data, extent(preview), core->tokens.data());
    dlf::vq_embed(core->model, core->tokens.data(), info.tiles, z_hat);
    return core->tokens.data();
}

// Decodes the detail of the file that `embed` has read. Returns the symbols (4, channels / 4, height, width) in the stream's order.
EXPORT(decode) const int32_t *decode(Core *core, size_t height, size_t width, float *y_hat) {
    dlf::decode_detail(core->model, *core->detail, height, width, y_hat, core->scratch);
    return core->scratch.symbols.data();
}

EXPORT(lookup) const uint16_t *lookup(Core *core, const float *z, size_t tiles) {
    core->tokens.resize(tiles * dlf::kTokensPerTile);
    dlf::vq_lookup(core->model, z, tiles, core->tokens.data());
    return core->tokens.data();
}

// Codes y (channels, height, width) and writes the file of an image with these tokens; returns its size.
EXPORT(encode)
size_t encode(Core *core, const float *y, size_t height, size_t width, const uint16_t *tokens, uint32_t image_width,
              uint32_t image_height, uint32_t fingerprint) {
    dlf_file_info info{};
    info.struct_size = sizeof info;
    info.width = image_width;
    info.height = image_height;
    info.fingerprint = fingerprint;
    info.has_checksum = 1;
    const size_t size = dlf::encode_detail(core->model, y, height, width, nullptr, core->scratch);
    const auto &stream = core->scratch.stream;
    dlf::write_file(core->model, info, tokens, stream.data() + stream.size() - size, size, core->stream, core->file);
    return core->file.size();
}
EXPORT(file) const uint8_t *file(const Core *core) { return core->file.data(); }

// RGBA to the batch of one image, (3, H, W) in whole tiles.
EXPORT(pad) const float *pad(const uint8_t *rgba, uint32_t height, uint32_t width) {
    dlf::pad_to_tiles(rgba, size_t{4} * width, 4, height, width, batch);
    return batch.data();
}

// The batch of one image to RGBA, in place of its RGB rows.
EXPORT(crop) void crop(const float *image, uint32_t height, uint32_t width, uint8_t *rgba) {
    const size_t count = size_t{height} * width;
    uint8_t *rgb = rgba + count; // the end of both is the same, so that no pixel is written before it is read
    dlf::crop_to_pixels(image, height, width, rgb, size_t{3} * width);
    for (size_t i = 0; i < count; ++i) {
        std::memmove(rgba + 4 * i, rgb + 3 * i, 3);
        rgba[4 * i + 3] = 255;
    }
}
