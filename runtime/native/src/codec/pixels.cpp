#include "codec/pixels.h"

#include <algorithm>
#include <array>

namespace dlf {
namespace {

constexpr size_t kChannels = 3;

std::array<float, 256> levels() {
    std::array<float, 256> table;
    for (size_t value = 0; value < table.size(); ++value)
        table[value] = static_cast<float>(value) / 255 * 2 - 1;
    return table;
}

// To the nearest, ties to even, clipped to 0..255.
uint8_t to_byte(float value) {
    // From here on a float32 has no room for a fraction, so that the addition rounds.
    constexpr float kWhole = 1 << 23;
    return static_cast<uint8_t>(std::clamp(value, 0.0f, 255.0f) + kWhole - kWhole);
}

} // namespace

void pad_to_tiles(const uint8_t *pixels, size_t stride, size_t channels, uint32_t height, uint32_t width,
                  AlignedVector<float> &batch) {
    const std::array<float, 256> level = levels();
    const size_t rows = kTileSide * tiles_along(height), columns = kTileSide * tiles_along(width);
    batch.resize(kChannels * rows * columns);
    for (size_t channel = 0; channel < kChannels; ++channel) {
        float *plane = &batch[channel * rows * columns];
        for (size_t row = 0; row < height; ++row) {
            const uint8_t *pixel = pixels + row * stride + (channels == 1 ? 0 : channel);
            float *out = plane + row * columns;
            for (size_t column = 0; column < width; ++column, pixel += channels)
                out[column] = level[*pixel];
            std::fill(out + width, out + columns, out[width - 1]);
        }
        const float *last = plane + (height - 1) * columns;
        for (size_t row = height; row < rows; ++row)
            std::copy_n(last, columns, plane + row * columns);
    }
}

void crop_to_pixels(const float *batch, uint32_t height, uint32_t width, uint8_t *pixels, size_t stride) {
    const size_t columns = kTileSide * tiles_along(width), plane = kTileSide * tiles_along(height) * columns;
    for (size_t row = 0; row < height; ++row) {
        const float *in = batch + row * columns;
        uint8_t *out = pixels + row * stride;
        for (size_t column = 0; column < width; ++column)
            for (size_t channel = 0; channel < kChannels; ++channel)
                *out++ = to_byte((in[channel * plane + column] / 2 + 0.5f) * 255);
    }
}

} // namespace dlf
