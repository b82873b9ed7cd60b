// The integer prior's inner loops as section 3 of docs/format.md defines them.
#include "entropy/prior_kernels.h"

namespace dlf {
namespace {

// Positions that a layer computes together, so that a weight is loaded once for all of them.
constexpr size_t kTile = 4;

int16_t sat16(int64_t x) { return static_cast<int16_t>(x < INT16_MIN ? INT16_MIN : x > INT16_MAX ? INT16_MAX : x); }

int32_t leaky(int32_t x, int32_t k) { return x >= 0 ? x : (x * k + 32768) >> 16; }

int64_t requant(const LayerView &layer, size_t output, int32_t acc) {
    return (int64_t{acc} * layer.m[output] + layer.b[output]) >> 32;
}

// Calls use(position, output, value) for every value of a layer.
template <class Use>
void pointwise(const LayerView &layer, Run<const int16_t> x, const int32_t *const *base, size_t positions, Use use) {
    for (size_t begin = 0; begin < positions; begin += kTile) {
        const size_t count = positions - begin < kTile ? positions - begin : kTile;
        const int16_t *rows[kTile];
        for (size_t p = 0; p < kTile; ++p) // a short tile repeats its first position, and these results are not used
            rows[p] = x.first + (begin + (p < count ? p : 0)) * x.stride;
        for (size_t o = 0; o < layer.outputs; ++o) {
            const int16_t *w = layer.w + o * layer.inputs;
            int32_t acc[kTile] = {};
            for (size_t i = 0; i < layer.inputs; ++i)
                for (size_t p = 0; p < kTile; ++p)
                    acc[p] += w[i] * rows[p][i];
            for (size_t p = 0; p < count; ++p)
                use(begin + p, o, requant(layer, o, acc[p] + (base == nullptr ? 0 : base[begin + p][o])));
        }
    }
}

void leaky_layer(const LayerView &layer, Run<const int16_t> x, const int32_t *const *base, size_t positions, Run<int16_t> out) {
    pointwise(layer, x, base, positions, [&](size_t p, size_t o, int64_t value) {
        out.first[p * out.stride + o] = static_cast<int16_t>(leaky(sat16(value), kLeaky001));
    });
}

void add_layer(const LayerView &layer, Run<const int16_t> x, Run<const int16_t> addend, size_t positions, Run<int16_t> out) {
    pointwise(layer, x, nullptr, positions, [&](size_t p, size_t o, int64_t value) {
        out.first[p * out.stride + o] = sat16(value + addend.first[p * addend.stride + o]);
    });
}

void gate_layers(const LayerView &a, const LayerView &b, Run<const int16_t> x, size_t positions, Run<int16_t> out) {
    pointwise(a, x, nullptr, positions, [&](size_t p, size_t o, int64_t value) {
        out.first[p * out.stride + o] = static_cast<int16_t>(leaky(sat16(value), kLeaky01));
    });
    pointwise(b, x, nullptr, positions, [&](size_t p, size_t o, int64_t value) {
        int16_t &sum = out.first[p * out.stride + o];
        sum = sat16(sum + leaky(sat16(value), kLeaky001));
    });
}

void depthwise_layer(const LayerView &layer, Run<const int16_t> x, size_t row, size_t positions, Run<int16_t> out) {
    for (size_t p = 0; p < positions; ++p) {
        for (size_t c = 0; c < layer.outputs; ++c) {
            int32_t acc = 0;
            for (size_t tap = 0; tap < kTaps; ++tap)
                acc += layer.w[c * kTaps + tap] * x.first[tap / 3 * row + (p + tap % 3) * x.stride + c];
            out.first[p * out.stride + c] = sat16(requant(layer, c, acc));
        }
    }
}

} // namespace

const PriorKernels kScalarKernels = {"scalar", {1, 1, false}, leaky_layer, add_layer, gate_layers, depthwise_layer};

} // namespace dlf
