#include "prior.h"

#include <algorithm>

namespace dlf {
namespace {

// Activations are int16 in 1/256, channels last: [position][D].

constexpr int32_t kLeaky01 = 6554; // slope 0.1 in 1/65536
constexpr int32_t kLeaky001 = 655; // slope 0.01

// Positions of a row that go through the layers together, so that a weight is loaded once for all of them.
constexpr size_t kTile = 4;

int16_t sat16(int64_t x) { return static_cast<int16_t>(std::clamp<int64_t>(x, INT16_MIN, INT16_MAX)); }

int32_t leaky(int32_t x, int32_t k) { return x >= 0 ? x : (x * k + 32768) >> 16; }

int64_t requant(const Layer &layer, size_t output, int32_t acc) {
    return (int64_t{acc} * layer.m[output] + layer.b[output]) >> 32;
}

// use(position, output, value) for the outputs of up to kTile positions.
template <class Use> void pointwise(const Layer &layer, const int16_t *x, size_t positions, Use use) {
    const size_t inputs = layer.inputs;
    const int16_t *rows[kTile];
    for (size_t p = 0; p < kTile; ++p) // a short tile repeats its last position, whose further results are not used
        rows[p] = x + std::min(p, positions - 1) * inputs;
    for (size_t o = 0; o < layer.outputs; ++o) {
        const int16_t *w = &layer.w[o * inputs];
        int32_t acc[kTile] = {};
        for (size_t i = 0; i < inputs; ++i)
            for (size_t p = 0; p < kTile; ++p)
                acc[p] += w[i] * rows[p][i];
        for (size_t p = 0; p < positions; ++p)
            use(p, o, requant(layer, o, acc[p]));
    }
}

// Up to kTile neighbouring positions of a depthwise 3x3 layer. `corner` is the upper left neighbour of the first, in a map that
// has a border of zeros and `stride` values a row; acc is scratch for one position.
void depthwise(const Layer &layer, const int16_t *corner, size_t stride, size_t positions, int32_t *acc, int16_t *out) {
    const size_t d = layer.outputs;
    for (size_t p = 0; p < positions; ++p) {
        std::fill_n(acc, d, 0);
        for (size_t tap = 0; tap < 9; ++tap) {
            const int16_t *w = &layer.w[tap * d];
            const int16_t *x = corner + (tap / 3) * stride + (tap % 3 + p) * d;
            for (size_t c = 0; c < d; ++c)
                acc[c] += w[c] * x[c];
        }
        for (size_t c = 0; c < d; ++c)
            out[p * d + c] = sat16(requant(layer, c, acc[c]));
    }
}

// A depth block in place on x, [height * width][D].
class DepthBlockRunner {
public:
    DepthBlockRunner(size_t d, size_t height, size_t width)
        : d_(d), height_(height), width_(width), stride_((width + 2) * d), t_((height + 2) * stride_), acc_(d),
          mixed_(kTile * d), u_(kTile * d), halves_(kTile * 4 * d), gated_(kTile * 2 * d) {}

    void run(const DepthBlock &block, int16_t *x) {
        for_each_tile([&](size_t row, size_t col, size_t positions) {
            int16_t *t = &t_[(row + 1) * stride_ + (col + 1) * d_];
            pointwise(block.conv1, x + (row * width_ + col) * d_, positions, [&](size_t p, size_t o, int64_t value) {
                t[p * d_ + o] = static_cast<int16_t>(leaky(sat16(value), kLeaky001));
            });
        });
        for_each_tile([&](size_t row, size_t col, size_t positions) {
            finish_tile(block, &t_[row * stride_ + col * d_], positions, x + (row * width_ + col) * d_);
        });
    }

private:
    template <class Visit> void for_each_tile(Visit visit) {
        for (size_t row = 0; row < height_; ++row)
            for (size_t col = 0; col < width_; col += kTile)
                visit(row, col, std::min(kTile, width_ - col));
    }

    // All that follows conv1, for the positions of a tile; x is theirs alone, `corner` as for depthwise().
    void finish_tile(const DepthBlock &block, const int16_t *corner, size_t positions, int16_t *x) {
        depthwise(block.depth_conv, corner, stride_, positions, acc_.data(), mixed_.data());
        pointwise(block.conv2, mixed_.data(), positions,
                  [&](size_t p, size_t o, int64_t value) { u_[p * d_ + o] = sat16(value + x[p * d_ + o]); });
        pointwise(block.conv, u_.data(), positions,
                  [&](size_t p, size_t o, int64_t value) { halves_[p * 4 * d_ + o] = sat16(value); });
        for (size_t p = 0; p < positions; ++p) {
            const int16_t *a = &halves_[p * 4 * d_];
            const int16_t *b = a + 2 * d_;
            for (size_t i = 0; i < 2 * d_; ++i)
                gated_[p * 2 * d_ + i] = sat16(leaky(a[i], kLeaky01) + leaky(b[i], kLeaky001));
        }
        pointwise(block.conv_out, gated_.data(), positions,
                  [&](size_t p, size_t o, int64_t value) { x[p * d_ + o] = sat16(value + u_[p * d_ + o]); });
    }

    size_t d_, height_, width_;
    size_t stride_;          // values in a row of t_
    std::vector<int16_t> t_; // conv1's result, [height + 2][width + 2][D], the border 0
    std::vector<int32_t> acc_;
    std::vector<int16_t> mixed_, u_, halves_, gated_; // of one tile
};

} // namespace

void prior_step(const EntropyModel &model, size_t step, const int32_t *r, size_t height, size_t width, int16_t *indexes,
                int16_t *means) {
    const size_t channels = model.channels;
    const size_t d = 2 * channels;
    const auto for_each = [&](auto visit) { // visit(entry of [C][5][5], entry of [C][height][width], scale's entry of x)
        for (size_t c = 0; c < channels; ++c)
            for (size_t row = 0; row < height; ++row)
                for (size_t col = 0; col < width; ++col)
                    visit(model.table_index(c, row, col, height, width), (c * height + row) * width + col,
                          (row * width + col) * d + c);
    };
    if (step == 0) {
        for_each([&](size_t table, size_t at, size_t) {
            indexes[at] = model.indexes[table];
            means[at] = model.means[table];
        });
        return;
    }
    std::vector<int16_t> x(height * width * d);
    for_each([&](size_t table, size_t at, size_t in_x) {
        x[in_x] = sat16(r[at]);
        x[in_x + channels] = model.common[table];
    });
    DepthBlockRunner runner(d, height, width);
    runner.run(model.adaptors[step - 1], x.data());
    for (const DepthBlock &block : model.shared)
        runner.run(block, x.data());
    const auto &thresholds = model.thresholds;
    for_each([&](size_t, size_t at, size_t in_x) {
        const auto above = std::upper_bound(thresholds.begin(), thresholds.end(), x[in_x]);
        indexes[at] = static_cast<int16_t>(above - thresholds.begin() - 1);
        means[at] = x[in_x + channels];
    });
}

} // namespace dlf
