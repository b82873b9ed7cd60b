// The integer prior's inner loops for vectors of any kind. Each instruction set's file includes this with its `Vectors`, in an
// unnamed namespace, so that files compiled for different processors share no code.
//
// Vectors has the types Int32 and Int16 (as many bytes), and
//   kLanes, kGroup           int32 lanes; inputs that `dot` multiplies and adds (1 or 2)
//   kInterleavedBias         how Requant reads b, see Layout
//   kTile                    positions whose accumulators, two vectors each, fit the registers beside the rest
//   zero(), load32(int32_t *), load16(int16_t *), store16(int16_t *, Int16)
//   broadcast(int16_t *)     one group of inputs, in every lane
//   Weights(int16_t *)       those of one group, of a panel
//   dot(a, b, w, x)          adds w * x, summed over the group, to a panel's two vectors
//   Requant(m, b)            the multipliers and biases of a vector; (acc) gives its int32 values
//   add16(a, b, x)           the int16 values sat16(value + x) of a panel's two vectors a, b
//   pack(a, b)               the same without x
//   leaky(x, k)              of int16 values
//   adds(x, y)               saturating sum of int16 values
//   taps(layer w, x, row, stride, a, b)  the depthwise sums of a panel's two vectors
#pragma once

#include "entropy/prior_kernels.h"

namespace dlf {
namespace {

#define DLF_INLINE inline __attribute__((always_inline))

template <class Vectors> struct Simd {
    using Int32 = typename Vectors::Int32;
    using Int16 = typename Vectors::Int16;
    using Requant = typename Vectors::Requant;
    static constexpr size_t kLanes = Vectors::kLanes, kGroup = Vectors::kGroup, kTile = Vectors::kTile;
    static constexpr size_t kPanel = 2 * kLanes;
    static constexpr Layout kLayout = {kPanel, kGroup, Vectors::kInterleavedBias};

    // A tile's positions. A short tile repeats its last position, whose results are then stored several times over.
    struct Tile {
        Tile(size_t begin, size_t positions) {
#pragma GCC unroll 8
            for (size_t p = 0; p < kTile; ++p)
                at[p] = begin + p < positions ? begin + p : positions - 1;
        }
        size_t at[kTile];
    };

    // The accumulators of the outputs from `output` on, one panel, at a tile's positions.
    struct Sums {
        DLF_INLINE Sums(const LayerView &layer, size_t output, Run<const int16_t> x, const Tile &tile,
                        const int32_t *const *base = nullptr) {
            const int16_t *rows[kTile];
            Int32 sum_a[kTile], sum_b[kTile]; // local, so that a compiler keeps them in registers
#pragma GCC unroll 8
            for (size_t p = 0; p < kTile; ++p) {
                rows[p] = x.first + tile.at[p] * x.stride;
                sum_a[p] = base == nullptr ? Vectors::zero() : Vectors::load32(base[tile.at[p]] + output);
                sum_b[p] = base == nullptr ? Vectors::zero() : Vectors::load32(base[tile.at[p]] + output + kLanes);
            }
            const int16_t *w = layer.w + output * layer.inputs;
            for (size_t i = 0; i < layer.inputs; i += kGroup, w += kPanel * kGroup) {
                const typename Vectors::Weights weights(w);
#pragma GCC unroll 8
                for (size_t p = 0; p < kTile; ++p)
                    Vectors::dot(sum_a[p], sum_b[p], weights, Vectors::broadcast(rows[p] + i));
            }
#pragma GCC unroll 8
            for (size_t p = 0; p < kTile; ++p) {
                a[p] = sum_a[p];
                b[p] = sum_b[p];
            }
        }
        Int32 a[kTile], b[kTile];
    };

    // The requantisation of the outputs from `output` on, one panel.
    struct Scale {
        DLF_INLINE Scale(const LayerView &layer, size_t output)
            : a(layer.m + output, layer.b + output), b(layer.m + output + kLanes, layer.b + output + kLanes) {}
        Requant a, b;
    };

    // Calls visit(first output of a panel, tile), panel by panel, so that a panel's weights stay in the first-level cache.
    template <class Visit> static DLF_INLINE void for_each(const LayerView &layer, size_t positions, Visit visit) {
        for (size_t output = 0; output < layer.outputs; output += kPanel)
            for (size_t begin = 0; begin < positions; begin += kTile)
                visit(output, Tile(begin, positions));
    }

    static void leaky(const LayerView &layer, Run<const int16_t> x, const int32_t *const *base, size_t positions,
                      Run<int16_t> out) {
        for_each(layer, positions, [&](size_t output, const Tile &tile) {
            const Sums sums(layer, output, x, tile, base);
            const Scale scale(layer, output);
#pragma GCC unroll 8
            for (size_t p = 0; p < kTile; ++p)
                Vectors::store16(out.first + tile.at[p] * out.stride + output,
                                 Vectors::leaky(Vectors::pack(scale.a(sums.a[p]), scale.b(sums.b[p])), kLeaky001));
        });
    }

    static void add(const LayerView &layer, Run<const int16_t> x, Run<const int16_t> addend, size_t positions, Run<int16_t> out) {
        for_each(layer, positions, [&](size_t output, const Tile &tile) {
            const Sums sums(layer, output, x, tile);
            const Scale scale(layer, output);
#pragma GCC unroll 8
            for (size_t p = 0; p < kTile; ++p)
                Vectors::store16(out.first + tile.at[p] * out.stride + output,
                                 Vectors::add16(scale.a(sums.a[p]), scale.b(sums.b[p]),
                                                Vectors::load16(addend.first + tile.at[p] * addend.stride + output)));
        });
    }

    static void gate(const LayerView &a, const LayerView &b, Run<const int16_t> x, size_t positions, Run<int16_t> out) {
        for_each(a, positions, [&](size_t output, const Tile &tile) {
            Int16 first[kTile];
            {
                const Sums sums(a, output, x, tile);
                const Scale scale(a, output);
#pragma GCC unroll 8
                for (size_t p = 0; p < kTile; ++p)
                    first[p] = Vectors::leaky(Vectors::pack(scale.a(sums.a[p]), scale.b(sums.b[p])), kLeaky01);
            }
            const Sums sums(b, output, x, tile);
            const Scale scale(b, output);
#pragma GCC unroll 8
            for (size_t p = 0; p < kTile; ++p) {
                const Int16 second = Vectors::leaky(Vectors::pack(scale.a(sums.a[p]), scale.b(sums.b[p])), kLeaky001);
                Vectors::store16(out.first + tile.at[p] * out.stride + output, Vectors::adds(first[p], second));
            }
        });
    }

    static void depthwise(const LayerView &layer, Run<const int16_t> x, size_t row, size_t positions, Run<int16_t> out) {
        for (size_t c = 0; c < layer.outputs; c += kPanel) {
            const Scale scale(layer, c);
            for (size_t p = 0; p < positions; ++p) {
                Int32 a = Vectors::zero(), b = Vectors::zero();
                Vectors::taps(layer.w + c * layer.inputs, x.first + p * x.stride + c, row, x.stride, a, b);
                Vectors::store16(out.first + p * out.stride + c, Vectors::pack(scale.a(a), scale.b(b)));
            }
        }
    }

    static constexpr PriorKernels table(const char *isa) { return {isa, kLayout, leaky, add, gate, depthwise}; }
};

// The tap's place in a map with `row` values a row and `stride` values a position.
DLF_INLINE const int16_t *tap_at(const int16_t *x, size_t tap, size_t row, size_t stride) {
    return x + tap / 3 * row + tap % 3 * stride;
}

} // namespace
} // namespace dlf
