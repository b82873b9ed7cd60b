// The kernels of winograd.h for vectors of `kLanes` floats. Each instruction set's file includes this, in an unnamed namespace,
// after defining kLanes, kVectors (vectors of a panel) and kRows (rows of a matrix product whose accumulators, kVectors each, fit
// the registers).
#pragma once

#include <cstring>

#include "winograd/winograd.h"

namespace dlf {
namespace {

#define DLF_INLINE inline __attribute__((always_inline))

constexpr size_t kPanel = kVectors * kLanes;

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t IntVec __attribute__((vector_size(kLanes * sizeof(float))));

DLF_INLINE Vec load(const float *x) {
    Vec v;
    std::memcpy(&v, x, sizeof v);
    return v;
}
DLF_INLINE void store(float *x, Vec v) { std::memcpy(x, &v, sizeof v); }
DLF_INLINE Vec splat(float x) { return x - Vec{}; }

// out[r][.] = sum over k of a[r][k] * b[k][.], a panel; a's inputs lie in blocks of 16, `a_block` floats apart.
template <size_t R>
DLF_INLINE void product(const float *a, size_t a_block, size_t inputs, const float *b, Vec (&out)[R][kVectors]) {
    Vec sums[R][kVectors] = {};
    for (size_t first = 0; first < inputs; first += kBlock, a += a_block) {
#pragma GCC unroll 2
        for (size_t k = 0; k < kBlock; ++k, b += kPanel) {
            Vec weights[kVectors];
#pragma GCC unroll 4
            for (size_t v = 0; v < kVectors; ++v)
                weights[v] = load(b + v * kLanes);
#pragma GCC unroll 12
            for (size_t r = 0; r < R; ++r) {
                const Vec x = splat(a[r * kBlock + k]);
#pragma GCC unroll 4
                for (size_t v = 0; v < kVectors; ++v)
                    sums[r][v] += x * weights[v];
            }
        }
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < R; ++r)
        for (size_t v = 0; v < kVectors; ++v)
            out[r][v] = sums[r][v];
}

// By rows from `begin` on, as many as there are at a time: f(row, vectors).
template <class F>
DLF_INLINE void by_rows(const float *a, size_t a_block, size_t rows, size_t inputs, const float *b, const F &f) {
    size_t row = 0;
    for (; row + kRows <= rows; row += kRows) {
        Vec out[kRows][kVectors];
        product<kRows>(a + row * kBlock, a_block, inputs, b, out);
        for (size_t r = 0; r < kRows; ++r)
            f(row + r, out[r]);
    }
    for (; row < rows; ++row) {
        Vec out[1][kVectors];
        product<1>(a + row * kBlock, a_block, inputs, b, out);
        f(row, out[0]);
    }
}

// e^x for |x| <= 87, to a few units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2], ln 2 in two parts.
DLF_INLINE Vec exponential(Vec x) {
    x = x < -87.0f ? splat(-87.0f) : x;
    x = x > 87.0f ? splat(87.0f) : x;
    const Vec rounding = splat(12582912.0f); // 1.5 * 2^23: a sum with it is rounded to an integer, which its low bits hold
    Vec n = x * 1.44269504f + rounding;
    IntVec bits;
    std::memcpy(&bits, &n, sizeof n);
    n = n - rounding;
    Vec r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    Vec p = splat(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const IntVec exponent = (bits + 127) << 23;
    Vec power;
    std::memcpy(&power, &exponent, sizeof power);
    return p * power;
}
DLF_INLINE Vec silu(Vec x) { return x / (1.0f + exponential(-x)); }

// One dimension of B^T d, and of A^T m, for the points 0, 1, -1, 2, -2 and infinity (Lavin and Gray, 2016).
DLF_INLINE void to_points(const Vec (&d)[kPatch], Vec (&out)[kPatch]) {
    const Vec a = d[4] - 4.0f * d[2], b = d[3] - 4.0f * d[1], c = d[4] - d[2], e = 2.0f * (d[3] - d[1]);
    out[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
    out[1] = a + b;
    out[2] = a - b;
    out[3] = c + e;
    out[4] = c - e;
    out[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
}
DLF_INLINE void from_points(const Vec (&m)[kPatch], Vec (&out)[kTile]) {
    const Vec s = m[1] + m[2], d = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
    out[0] = m[0] + s + s2;
    out[1] = d + 2.0f * d2;
    out[2] = s + 4.0f * s2;
    out[3] = d + 8.0f * d2 + m[5];
}

DLF_INLINE float *at(const Map &map, size_t block, size_t y, size_t x) {
    return map.values + ((block * map.height + y) * map.width + x) * kBlock;
}

// Computes the activated six input rows of 16 channels of an item's tiles, with zeros outside the map.
DLF_INLINE void activate(const Convolution &work, size_t block, size_t top, size_t left, size_t columns, float *out) {
    for (size_t r = 0; r < kPatch; ++r, out += columns * kBlock) {
        const size_t y = top + r - 1; // wraps above the map
        if (y >= work.height) {
            std::memset(out, 0, columns * kBlock * sizeof(float));
            continue;
        }
        for (size_t c = 0; c < columns; ++c) {
            const size_t x = left + c - 1;
            const float *from = x >= work.out.width ? nullptr
                                : work.upsample     ? at(work.x, block, y / 2 - work.x.top, x / 2)
                                                    : at(work.x, block, y - work.x.top, x);
            for (size_t lane = 0; lane < kBlock; lane += kLanes) {
                Vec value = from == nullptr ? Vec{} : load(from + lane);
                if (from != nullptr && work.scale != nullptr)
                    value = silu(value * load(work.scale + block * kBlock + lane) + load(work.shift + block * kBlock + lane));
                store(out + c * kBlock + lane, value);
            }
        }
    }
}

void convolve(const Convolution &work, size_t item, float *scratch) {
    const size_t strips = convolution_strips(work.out), inputs = work.x.channels, blocks = inputs / kBlock;
    const size_t top = work.first + item / strips * kTile, first = item % strips * kTiles;
    const size_t tiles = work.out.width / kTile - first < kTiles ? work.out.width / kTile - first : kTiles;
    const size_t columns = kTile * tiles + 2, left = kTile * first;
    const size_t stride = point_stride(inputs);
    float *const activated = scratch, *const points = activated + kActivated; // by `stride`: [blocks][kTiles][16]
    float *const products = points + kPoints * stride;                        // [points][kTiles][panel]

    for (size_t block = 0; block < blocks; ++block) {
        activate(work, block, top, left, columns, activated);
        for (size_t tile = 0; tile < tiles; ++tile)
            for (size_t lane = 0; lane < kBlock; lane += kLanes) {
                Vec half[kPatch][kPatch];
                for (size_t r = 0; r < kPatch; ++r) {
                    Vec d[kPatch];
                    for (size_t c = 0; c < kPatch; ++c)
                        d[c] = load(activated + (r * columns + kTile * tile + c) * kBlock + lane);
                    to_points(d, half[r]);
                }
                for (size_t c = 0; c < kPatch; ++c) {
                    Vec d[kPatch], out[kPatch];
                    for (size_t r = 0; r < kPatch; ++r)
                        d[r] = half[r][c];
                    to_points(d, out);
                    for (size_t r = 0; r < kPatch; ++r)
                        store(points + (r * kPatch + c) * stride + (block * kTiles + tile) * kBlock + lane, out[r]);
                }
            }
    }
    for (size_t output = 0; output < work.out.channels; output += kPanel) {
        for (size_t p = 0; p < kPoints; ++p) {
            const float *weights = work.weights + (output * kPoints + p * kPanel) * inputs;
            by_rows(points + p * stride, kTiles * kBlock, tiles, inputs, weights, [&](size_t tile, const Vec *sums) {
                for (size_t v = 0; v < kVectors; ++v)
                    store(products + (p * kTiles + tile) * kPanel + v * kLanes, sums[v]);
            });
        }
        for (size_t tile = 0; tile < tiles; ++tile)
            for (size_t lane = 0; lane < kPanel && output + lane < work.out.channels; lane += kLanes) {
                Vec half[kTile][kPatch];
                for (size_t c = 0; c < kPatch; ++c) {
                    Vec m[kPatch], out[kTile];
                    for (size_t r = 0; r < kPatch; ++r)
                        m[r] = load(products + ((r * kPatch + c) * kTiles + tile) * kPanel + lane);
                    from_points(m, out);
                    for (size_t r = 0; r < kTile; ++r)
                        half[r][c] = out[r];
                }
                const size_t channel = output + lane;
                const Vec bias = load(work.bias + channel);
                for (size_t r = 0; r < kTile; ++r) {
                    Vec out[kTile];
                    from_points(half[r], out);
                    float *to = at(work.out, channel / kBlock, top + r - work.out.top, left + kTile * tile) + channel % kBlock;
                    for (size_t c = 0; c < kTile; ++c, to += kBlock)
                        store(to, work.add ? out[c] + bias + load(to) : out[c] + bias);
                }
            }
    }
}

void pointwise(const Map &x, const float *weights, const float *bias, const Map &out, size_t row) {
    for (size_t output = 0; output < out.channels; output += kPanel)
        by_rows(at(x, 0, row, 0), x.height * x.width * kBlock, x.width, x.channels, weights + output * x.channels,
                [&](size_t column, const Vec *sums) {
                    for (size_t v = 0; v < kVectors && output + v * kLanes < out.channels; ++v) {
                        const size_t channel = output + v * kLanes;
                        store(at(out, channel / kBlock, row, column) + channel % kBlock, sums[v] + load(bias + channel));
                    }
                });
}

// Row by row with each row's own mean, so that no square is much larger than the variance; the rows are merged in double
// precision.
void moments(const Map &x, size_t block, double *mean, double *variance) {
    const float count = static_cast<float>(x.width);
    double squares[kBlock] = {};
    for (size_t lane = 0; lane < kBlock; ++lane)
        mean[lane] = 0;
    for (size_t y = 0; y < x.height; ++y) {
        float row_mean[kBlock], row_squares[kBlock];
        const float *row = at(x, block, y, 0);
        for (size_t lane = 0; lane < kBlock; lane += kLanes) {
            Vec sum = {}, square = {};
            for (size_t c = 0; c < x.width; ++c)
                sum += load(row + c * kBlock + lane);
            sum /= count;
            for (size_t c = 0; c < x.width; ++c) {
                const Vec distance = load(row + c * kBlock + lane) - sum;
                square += distance * distance;
            }
            store(row_mean + lane, sum);
            store(row_squares + lane, square);
        }
        const double width = static_cast<double>(x.width), rows = static_cast<double>(y + 1);
        for (size_t lane = 0; lane < kBlock; ++lane) {
            const double delta = static_cast<double>(row_mean[lane]) - mean[lane];
            mean[lane] += delta / rows;
            squares[lane] += static_cast<double>(row_squares[lane]) + delta * delta * width * (rows - 1) / rows;
        }
    }
    for (size_t lane = 0; lane < kBlock; ++lane)
        variance[lane] = squares[lane] / static_cast<double>(x.width * x.height);
}

} // namespace
} // namespace dlf
