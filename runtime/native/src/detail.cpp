#include "detail.h"

#include <algorithm>
#include <cmath>

#include "prior.h"

namespace dlf {
namespace {

constexpr float kUnit = 256; // r and means are in 1/256

// The group that a position of a 2x2 block codes at each step is its place in the block, 2*row + col, xor this.
constexpr size_t kGroupSwap[kSteps] = {0, 3, 2, 1};

// Runs the four steps and returns r. code(index, mean, channel's position in [C][height][width], its q) gives the symbol of
// one that is coded, in the stream's order.
template <class Code>
std::vector<int32_t> four_steps(const EntropyModel &model, size_t height, size_t width, Code code) {
    const size_t group_size = model.channels / 4;
    const size_t count = model.channels * height * width;
    std::vector<int32_t> r(count);
    std::vector<int16_t> indexes(count), means(count);
    for (size_t step = 0; step < kSteps; ++step) {
        prior_step(model, step, r.data(), height, width, indexes.data(), means.data());
        for (size_t c = 0; c < group_size; ++c) {
            for (size_t row = 0; row < height; ++row) {
                for (size_t col = 0; col < width; ++col) {
                    const size_t group = (2 * (row % 2) + col % 2) ^ kGroupSwap[step];
                    const size_t channel = group * group_size + c;
                    const size_t at = (channel * height + row) * width + col;
                    r[at] = means[at];
                    if (indexes[at] >= 0) {
                        const float q = model.q[model.table_index(channel, row, col, height, width)];
                        r[at] += 256 * code(indexes[at], means[at], at, q);
                    }
                }
            }
        }
    }
    return r;
}

void reconstruct(const EntropyModel &model, const std::vector<int32_t> &r, size_t height, size_t width, float *y_hat) {
    size_t at = 0;
    for (size_t c = 0; c < model.channels; ++c)
        for (size_t row = 0; row < height; ++row)
            for (size_t col = 0; col < width; ++col, ++at)
                y_hat[at] = static_cast<float>(r[at]) / kUnit * model.q[model.table_index(c, row, col, height, width)];
}

// To the nearest, ties to even, whatever the floating-point environment's rounding; clamped to what a stream can hold.
int32_t quantise(float x) {
    if (!(x > -kMaxSymbol)) // or NaN, which 0/q is where subnormal numbers are flushed to zero
        return -kMaxSymbol;
    if (x >= kMaxSymbol)
        return kMaxSymbol;
    const float low = std::floor(x);
    const auto symbol = static_cast<int32_t>(low);
    const float above = x - low;
    return above > 0.5f || (above == 0.5f && symbol % 2 != 0) ? symbol + 1 : symbol;
}

} // namespace

std::vector<uint8_t> encode_detail(const EntropyModel &model, const float *y, size_t height, size_t width, float *y_hat) {
    require(std::all_of(y, y + model.channels * height * width, [](float value) { return std::isfinite(value); }),
            DLF_ERROR_INVALID_ARGUMENT);
    struct Coded {
        int16_t index;
        int32_t symbol;
    };
    std::vector<Coded> coded;
    const auto r = four_steps(model, height, width, [&](int16_t index, int16_t mean, size_t at, float q) {
        const int32_t symbol = quantise(y[at] / q - static_cast<float>(mean) / kUnit);
        coded.push_back({index, symbol});
        return symbol;
    });
    if (y_hat != nullptr)
        reconstruct(model, r, height, width, y_hat);
    RansEncoder encoder;
    for (auto next = coded.rbegin(); next != coded.rend(); ++next)
        encoder.put(model.cdfs[static_cast<size_t>(next->index)], next->symbol);
    return encoder.finish();
}

void decode_detail(const EntropyModel &model, const void *data, size_t size, size_t height, size_t width, float *y_hat) {
    RansDecoder decoder(data, size);
    const auto r = four_steps(model, height, width, [&](int16_t index, int16_t, size_t, float) {
        return decoder.get(model.cdfs[static_cast<size_t>(index)]);
    });
    decoder.finish();
    reconstruct(model, r, height, width, y_hat);
}

} // namespace dlf
