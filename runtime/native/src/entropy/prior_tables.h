// The integer prior's layers in the layout of a set of kernels, with everything precomputed that does not depend on the image.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "entropy/prior_kernels.h"
#include "support/aligned.h"

namespace dlf {

// requant(acc; m, b) of an integer linear layer, in an entropy.bin's order.
struct Layer {
    size_t outputs, inputs;
    std::vector<int8_t> w;  // [outputs][inputs]; a depthwise layer has its 9 taps as inputs
    std::vector<int32_t> m; // [outputs]
    std::vector<int64_t> b; // [outputs]

    // The layer of some of the outputs, or of the inputs from `begin` to before `end`.
    Layer of_outputs(const std::vector<size_t> &chosen) const;
    Layer of_inputs(size_t begin, size_t end) const;
};

// Width D, twice the channels C of the latent.
struct DepthBlock {
    Layer conv1;      // D -> D
    Layer depth_conv; // depthwise 3x3
    Layer conv2;      // D -> D
    Layer conv;       // D -> 4D
    Layer conv_out;   // 2D -> D
};

// A layer in a Layout.
class PackedLayer {
public:
    PackedLayer(const Layer &layer, const Layout &layout);
    LayerView view() const { return {w_.data(), m_.data(), b_.data(), outputs_, inputs_}; }

private:
    size_t outputs_, inputs_; // padded
    AlignedVector<int16_t> w_;
    AlignedVector<int32_t> m_;
    AlignedVector<int64_t> b_;
};

struct PackedBlock {
    PackedBlock(const DepthBlock &block, const Layout &layout);

    PackedLayer conv1, depth_conv, conv2;
    PackedLayer conv_a, conv_b;        // the halves of conv
    std::vector<PackedLayer> conv_out; // whole; of the last block, one for each group: its C/4 scales, then its C/4 means
};

// Tables for each channel by a position's class: 0, 1 in the first two rows (columns), 3, 4 in the last two, 2 between.
constexpr size_t kClasses = 5;
constexpr size_t position_class(size_t at, size_t count) { return at < 2 ? at : at + 2 >= count ? kClasses - (count - at) : 2; }

constexpr size_t kGroups = 4; // of channels
constexpr size_t kSteps = 4;
constexpr size_t kSharedBlocks = 3;

struct PriorTables {
    PriorTables() = default;
    // common: [C][5][5]
    PriorTables(const PriorKernels &kernels_, const std::array<DepthBlock, kSteps - 1> &adaptors,
                const std::array<DepthBlock, kSharedBlocks> &shared, const std::vector<int16_t> &common);

    const PriorKernels *kernels = nullptr;
    // conv1 of an adaptor has only r as its input: the sum over `common` depends only on the position's class.
    std::vector<PackedBlock> adaptors, shared;
    std::array<AlignedVector<int32_t>, kSteps - 1> base; // [5][5][conv1's outputs], in the order of its m
};

} // namespace dlf
