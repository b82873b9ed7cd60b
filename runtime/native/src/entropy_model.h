// The content of an entropy.bin (section 4 of docs/format.md), checked and laid out for use.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "rans.h"

namespace dlf {

// requant(acc; m, b) = (acc * m + b) >> 32 of an integer linear layer. Weights are kept as int16, so that a compiler can
// multiply them with int16 activations directly.
struct Layer {
    size_t outputs, inputs;
    std::vector<int16_t> w; // [outputs][inputs]; of a depthwise layer [9][outputs]
    std::vector<int32_t> m; // [outputs]
    std::vector<int64_t> b; // [outputs]
};

// Width D, twice the channels of the latent.
struct DepthBlock {
    Layer conv1;      // D -> D
    Layer depth_conv; // depthwise 3x3
    Layer conv2;      // D -> D
    Layer conv;       // D -> 4D
    Layer conv_out;   // 2D -> D
};

// Tables for each channel by a position's class: 0, 1 in the first two rows (columns), 3, 4 in the last two, 2 between.
constexpr size_t kClasses = 5;
constexpr size_t position_class(size_t at, size_t count) { return at < 2 ? at : at + 2 >= count ? kClasses - (count - at) : 2; }

constexpr size_t kSteps = 4;
constexpr size_t kSharedBlocks = 3;

struct EntropyModel {
    EntropyModel(const void *data, size_t size); // throws a Failure for data that are no entropy model

    // The entry of a [C][5][5] table.
    size_t table_index(size_t channel, size_t row, size_t col, size_t height, size_t width) const {
        return (channel * kClasses + position_class(row, height)) * kClasses + position_class(col, width);
    }

    size_t channels;
    size_t codebook_size, codebook_dim;
    uint32_t token_bits;
    std::vector<float> codebook; // [codebook_size][codebook_dim], unit vectors
    std::vector<Cdf> cdfs;
    std::vector<int16_t> thresholds; // [cdfs], ascending
    std::vector<float> q;            // [C][5][5]
    std::vector<int16_t> indexes;    // [C][5][5]
    std::vector<int16_t> means;      // [C][5][5]
    std::vector<int16_t> common;     // [C][5][5]
    std::array<DepthBlock, kSteps - 1> adaptors;
    std::array<DepthBlock, kSharedBlocks> shared;
};

} // namespace dlf
