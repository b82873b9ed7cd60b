// The upper levels of the pixel generator in float32 for the CPU, computed step by step; see section 4 of docs/format.md.
#pragma once

#include <cstddef>
#include <vector>

#include "support/aligned.h"

namespace dlf {

// What is computed from x, the map that goes through, and h, the one inside a block.
enum class LevelKind {
    kFirst,    // h = conv(silu(norm(x)))
    kSecond,   // x += conv(silu(norm(h)))
    kShortcut, // x = weight x, before kSecond
    kUpsample, // x = conv(x, doubled in size)
    kOutput,   // the image = conv(silu(norm(x))), clamped to -1..1
};

struct LevelStep {
    using Floats = AlignedVector<float>;

    LevelKind kind;
    size_t inputs, outputs, groups; // groups: of the GroupNorm before the convolution; 0 for none
    float epsilon;
    Floats weight, bias, gamma, beta; // weight (outputs, inputs, 3, 3); (outputs, inputs) for kShortcut
};

constexpr size_t kLevelSide = 4;              // every map's height and width is a multiple of it
constexpr size_t kLargeMap = size_t{1} << 20; // positions of a map whose blocks are computed in bands, in less memory, more time

// The instruction set that run_levels uses; NULL: this processor has none that it is written for, or DLF_ISA asks for another.
const char *levels_isa();

// x (inputs of the first step, height, width) through the steps to `image` (outputs of the last, its height, its width), in
// `threads` threads. Throws std::bad_alloc.
void run_levels(const std::vector<LevelStep> &steps, const float *x, size_t height, size_t width, size_t threads, float *image,
                size_t large_map = kLargeMap);

} // namespace dlf
