// The kernels of the pixel generator's upper levels (levels.h): 3x3 convolutions by Winograd's F(4x4, 3x3), which takes 2.25
// products an output where the direct method takes 9, with the GroupNorm and SiLU before each and the residual after it.
//
// The coder does not depend on them, so they may compute in floats.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dlf {

constexpr size_t kBlock = 16; // a map is [channels / 16][height][width][16]: a position's 16 channels are a cache line

struct Map {
    float *values;
    size_t channels, height, width;
    size_t top = 0; // the row of the whole map that is the first here, in a band of one
};

// out = conv3x3(silu(x * scale + shift)) + bias, plus what `out` holds if `add`; x is doubled in size first if `upsample`.
struct Convolution {
    Map x;
    const float *scale, *shift; // by channel; null: neither these nor SiLU
    const float *weights;       // by `kPoints` points: [outputs / panel][points][inputs][panel]
    const float *bias;
    Map out; // a height and width that 4 divides
    bool upsample, add;
    size_t height, first, rows; // of the whole map that `out` is, or is a band of; rows to compute: how many, from which on
};

constexpr size_t kTile = 4, kPatch = 6, kPoints = kPatch * kPatch;
constexpr size_t kTiles = 24; // of an item of work, in a row: its points stay in the second-level cache

// The functions of one instruction set. Files compiled for different ones share no inline code.
struct LevelKernels {
    const char *isa;
    size_t panel; // outputs of a panel of weights, at least kBlock

    // One item, of convolution_items(work); `scratch` holds convolution_scratch(inputs, panel) floats.
    void (*convolve)(const Convolution &work, size_t item, float *scratch);

    // out = weights x + bias at the positions of a row; weights are [outputs / panel][inputs][panel].
    void (*pointwise)(const Map &x, const float *weights, const float *bias, const Map &out, size_t row);

    // Computes the mean and the variance of 16 channels of a map: squared distances are from each row's mean, with the
    // correction from the row's mean to that of all rows.
    void (*moments)(const Map &x, size_t block, double *mean, double *variance);
};

constexpr size_t kActivated = kPatch * (kTile * kTiles + 2) * kBlock;
// The distance from a point to the next: a cache line more than a point's size, because otherwise all points of a tile would
// share one set of the first-level cache.
constexpr size_t point_stride(size_t inputs) { return kTiles * inputs + kBlock; }
constexpr size_t convolution_scratch(size_t inputs, size_t panel) {
    return kActivated + kPoints * (point_stride(inputs) + kTiles * panel);
}
constexpr size_t convolution_strips(const Map &out) { return (out.width / kTile + kTiles - 1) / kTiles; }
constexpr size_t convolution_items(const Convolution &work) { return work.rows / kTile * convolution_strips(work.out); }

#if defined(__x86_64__)
extern const LevelKernels kAvx2LevelKernels; // with FMA
extern const LevelKernels kAvx512LevelKernels;
#elif defined(__aarch64__)
extern const LevelKernels kNeonLevelKernels;
#endif

} // namespace dlf
