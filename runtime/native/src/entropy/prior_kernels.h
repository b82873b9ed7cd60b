// The integer prior's inner loops: one table of functions for each instruction set. prior_scalar.cpp defines them
// (section 3 of docs/format.md); every other table gives the same bits, which tests/runtime/native/check_kernels.cpp checks.
//
// Only plain types are used here: files compiled for one instruction set must not share inline code with the others.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dlf {

// The layout of a table's layers. Outputs are in panels of two vectors of int32 accumulators, and inputs in groups that one
// instruction multiplies and adds. A layer's outputs are padded to whole panels, its inputs to whole groups, with zeros.
//
// The outputs of a panel are permuted: each block of eight has four in either vector, because packing two vectors of int32
// into one of int16 on x86 reverses this permutation (with vectors of four it is the plain order).
struct Layout {
    size_t panel;          // outputs of a panel; 1 for no vectors
    size_t group;          // inputs of a group
    bool interleaved_bias; // b's two halves hold a vector's even and odd lanes; otherwise its lower and upper ones
};

// The number of channels of activations, with padding, is a multiple of every panel.
constexpr size_t kMaxPanel = 32;

// requant(acc; m, b) = (acc * m + b) >> 32 of w x, as a Layout says:
struct LayerView {
    const int16_t *w;       // [outputs / panel][inputs / group][panel][group]
    const int32_t *m;       // [outputs]
    const int64_t *b;       // [outputs / (panel / 2)][2][panel / 4]
    size_t outputs, inputs; // padded
};

// Consecutive positions: the first one's channels, and the distance from one position to the next.
template <class T> struct Run {
    T *first;
    size_t stride;
};

// `positions` is never 0. Outputs hold as many channels as the layer has padded outputs.
struct PriorKernels {
    const char *isa;
    Layout layout;

    // out = leaky(sat16(layer(x)); 655). Accumulators begin at base[position][output] (ordered as `m` is); no base is zero.
    void (*leaky)(const LayerView &layer, Run<const int16_t> x, const int32_t *const *base, size_t positions, Run<int16_t> out);

    // out = sat16(layer(x) + addend)
    void (*add)(const LayerView &layer, Run<const int16_t> x, Run<const int16_t> addend, size_t positions, Run<int16_t> out);

    // out = sat16(leaky(sat16(a(x)); 6554) + leaky(sat16(b(x)); 655))
    void (*gate)(const LayerView &a, const LayerView &b, Run<const int16_t> x, size_t positions, Run<int16_t> out);

    // out = sat16(layer(x's 3x3 neighbours)), channel by channel; the layer's inputs are its 9 taps. x is the upper left
    // neighbour of the first position, `row` the distance from one row to the next.
    void (*depthwise)(const LayerView &layer, Run<const int16_t> x, size_t row, size_t positions, Run<int16_t> out);
};

constexpr int32_t kLeaky01 = 6554; // slope 0.1 in 1/65536
constexpr int32_t kLeaky001 = 655; // slope 0.01
constexpr size_t kTaps = 9;

extern const PriorKernels kScalarKernels;
#if defined(__x86_64__)
extern const PriorKernels kAvx2Kernels;
extern const PriorKernels kAvx512Kernels; // AVX-512 with BW and VNNI
#elif defined(__aarch64__)
extern const PriorKernels kNeonKernels;
#elif defined(__wasm__)
extern const PriorKernels kSimd128Kernels;
#endif

// Returns the tables that this processor can run, the fastest first, with NULL at the end.
const PriorKernels *const *available_kernels();

// Returns the fastest, or the one that the environment variable DLF_ISA names. Throws a Failure if that is not available.
const PriorKernels &choose_kernels();

} // namespace dlf
