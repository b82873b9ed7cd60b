#include "winograd/winograd.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include <sys/mman.h>

#include "support/thread_pool.h"
#include "winograd/levels.h"

namespace dlf {
namespace {

using Floats = LevelStep::Floats;

// Returns the kernels for this processor and, if it is set, DLF_ISA; NULL if there are none.
const LevelKernels *kernels() {
    [[maybe_unused]] const char *const isa = std::getenv("DLF_ISA");
    [[maybe_unused]] const auto wanted = [&](const LevelKernels &table) {
        return isa == nullptr || std::strcmp(isa, table.isa) == 0;
    };
#if defined(__x86_64__)
    if (wanted(kAvx512LevelKernels) && __builtin_cpu_supports("avx512f"))
        return &kAvx512LevelKernels;
    if (wanted(kAvx2LevelKernels) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &kAvx2LevelKernels;
#elif defined(__aarch64__)
    if (wanted(kNeonLevelKernels))
        return &kNeonLevelKernels;
#endif
    return nullptr;
}

size_t rounded_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Three pieces of memory that the maps of all steps share: x, h, and what is made from x. Each is as large as the largest map;
// pages that no map uses are never touched.
class Pieces {
public:
    explicit Pieces(size_t floats) {
        const size_t bytes = rounded_up(floats * sizeof(float), kHugePage);
        for (Piece &piece : pieces_) {
            piece.reset(static_cast<float *>(std::aligned_alloc(kHugePage, bytes)));
            if (piece == nullptr)
                throw std::bad_alloc();
            madvise(piece.get(), bytes, MADV_HUGEPAGE); // without it a third of the time is spent on page faults
        }
    }
    Map x(size_t channels, size_t height, size_t width) const { return {pieces_[0].get(), channels, height, width}; }
    Map h(size_t channels, size_t height, size_t width) const { return {pieces_[1].get(), channels, height, width}; }
    Map next(size_t channels, size_t height, size_t width) const { return {pieces_[2].get(), channels, height, width}; }
    // The old x is of no more use, and smaller than the maps that follow: its pages go back.
    void next_is_x(size_t old_floats) {
        std::swap(pieces_[0], pieces_[2]);
        madvise(pieces_[2].get(), rounded_up(old_floats * sizeof(float), kHugePage), MADV_DONTNEED);
    }

private:
    static constexpr size_t kHugePage = size_t{1} << 21;
    struct Free {
        void operator()(float *values) const { std::free(values); }
    };
    using Piece = std::unique_ptr<float, Free>;
    Piece pieces_[3];
};

class Levels {
public:
    Levels(const LevelKernels &kernels, size_t largest, size_t threads) : kernels_(kernels), pool_(threads), pieces_(largest) {}

    void start(const float *x, size_t channels, size_t height, size_t width) {
        x_ = pieces_.x(padded(channels), height, width);
        const size_t positions = height * width;
        pool_.run(channels, [&](size_t channel, size_t) {
            float *to = x_.values + channel / kBlock * positions * kBlock + channel % kBlock;
            for (size_t i = 0; i < positions; ++i)
                to[i * kBlock] = x[channel * positions + i];
        });
        for (size_t channel = channels; channel < x_.channels; ++channel) {
            float *to = x_.values + channel / kBlock * positions * kBlock + channel % kBlock;
            for (size_t i = 0; i < positions; ++i)
                to[i * kBlock] = 0;
        }
    }

    void run(const LevelStep &step, float *out) {
        const size_t channels = padded(step.outputs);
        switch (step.kind) {
        case LevelKind::kFirst: h_ = pieces_.h(channels, x_.height, x_.width); return convolve(step, x_, h_, false);
        case LevelKind::kSecond: return convolve(step, h_, x_, true);
        case LevelKind::kShortcut: return channels <= x_.channels ? shorten(step, channels) : widen(step, channels);
        case LevelKind::kUpsample: {
            const Map next = pieces_.next(channels, 2 * x_.height, 2 * x_.width);
            convolve(step, x_, next, false);
            return go_on_with(next);
        }
        case LevelKind::kOutput: {
            h_ = pieces_.h(channels, x_.height, x_.width);
            convolve(step, x_, h_, false);
            const size_t positions = x_.height * x_.width;
            pool_.run(x_.height, [&](size_t row, size_t) {
                for (size_t channel = 0; channel < step.outputs; ++channel) {
                    const float *from = h_.values + channel / kBlock * positions * kBlock + channel % kBlock;
                    for (size_t i = row * x_.width; i < (row + 1) * x_.width; ++i)
                        out[channel * positions + i] = std::clamp(from[i * kBlock], -1.0f, 1.0f); // NaN stays
                }
            });
        }
        }
    }

private:
    // Maps have whole blocks of channels, and weights whole panels of outputs; those that a step does not have are 0.
    static size_t padded(size_t channels) { return rounded_up(channels, kBlock); }
    size_t panels(size_t outputs) const { return rounded_up(padded(outputs), kernels_.panel); }

    void go_on_with(const Map &next) {
        pieces_.next_is_x(x_.channels * x_.height * x_.width);
        x_ = next;
    }

    void widen(const LevelStep &step, size_t channels) {
        const Map next = pieces_.next(channels, x_.height, x_.width);
        const Floats weights = panel_weights(step), bias = padded_bias(step);
        pool_.run(x_.height, [&](size_t row, size_t) { kernels_.pointwise(x_, weights.data(), bias.data(), next, row); });
        go_on_with(next);
    }

    // In place, by way of a row of each thread's: a second map would be the most that is ever held.
    void shorten(const LevelStep &step, size_t channels) {
        const Floats weights = panel_weights(step), bias = padded_bias(step);
        const size_t line = x_.width * kBlock, blocks = channels / kBlock;
        Floats rows(pool_.size() * channels * x_.width);
        pool_.run(x_.height, [&](size_t row, size_t thread) {
            const Map out = {rows.data() + thread * channels * x_.width, channels, 1, x_.width};
            Map in = x_;
            in.values += row * line;
            kernels_.pointwise(in, weights.data(), bias.data(), out, 0);
            for (size_t block = 0; block < blocks; ++block)
                std::copy_n(out.values + block * line, line, in.values + block * x_.height * line);
        });
        x_.channels = channels;
    }

    void convolve(const LevelStep &step, const Map &x, const Map &out, bool add) {
        Floats scale, shift;
        if (step.groups != 0)
            normalise(step, x, scale, shift);
        const Floats weights = point_weights(step, x.channels), bias = padded_bias(step);
        const Convolution work = {x,   scale.empty() ? nullptr : scale.data(), shift.data(), weights.data(), bias.data(),
                                  out, step.kind == LevelKind::kUpsample,      add};
        const size_t each = rounded_up(convolution_scratch(x.channels, kernels_.panel), kBlock);
        Floats scratch(each * pool_.size());
        pool_.run(convolution_items(out),
                  [&](size_t item, size_t thread) { kernels_.convolve(work, item, scratch.data() + thread * each); });
    }

    // GroupNorm as x * scale + shift.
    void normalise(const LevelStep &step, const Map &x, Floats &scale, Floats &shift) {
        std::vector<double> mean(x.channels), variance(x.channels);
        pool_.run(x.channels / kBlock, [&](size_t block, size_t) {
            kernels_.moments(x, block, mean.data() + block * kBlock, variance.data() + block * kBlock);
        });
        scale.resize(x.channels);
        shift.resize(x.channels);
        const size_t size = step.inputs / step.groups;
        for (size_t first = 0; first < step.inputs; first += size) {
            double group_mean = 0, group_variance = 0;
            for (size_t c = first; c < first + size; ++c)
                group_mean += mean[c] / static_cast<double>(size);
            for (size_t c = first; c < first + size; ++c)
                group_variance += (variance[c] + (mean[c] - group_mean) * (mean[c] - group_mean)) / static_cast<double>(size);
            const double factor = 1 / std::sqrt(group_variance + static_cast<double>(step.epsilon));
            for (size_t c = first; c < first + size; ++c) {
                scale[c] = static_cast<float>(factor * static_cast<double>(step.gamma[c]));
                shift[c] = static_cast<float>(static_cast<double>(step.beta[c]) -
                                              group_mean * factor * static_cast<double>(step.gamma[c]));
            }
        }
    }

    // G g G^T of each kernel. Computed in each run: it takes a hundredth of the convolution's time, and keeping it would take
    // four times the memory of the weights.
    Floats point_weights(const LevelStep &step, size_t inputs) {
        static constexpr double kG[kPatch][3] = {{1.0 / 4, 0, 0},
                                                 {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                                 {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                                 {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                                 {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                                 {0, 0, 1}};
        const size_t panel = kernels_.panel;
        Floats points(panels(step.outputs) * inputs * kPoints);
        pool_.run(step.outputs, [&](size_t output, size_t) {
            float *const to = points.data() + output / panel * panel * inputs * kPoints + output % panel;
            for (size_t input = 0; input < step.inputs; ++input) {
                const float *g = step.weight.data() + (output * step.inputs + input) * 9;
                double half[kPatch][3];
                for (size_t r = 0; r < kPatch; ++r)
                    for (size_t c = 0; c < 3; ++c)
                        half[r][c] = kG[r][0] * static_cast<double>(g[c]) + kG[r][1] * static_cast<double>(g[3 + c]) +
                                     kG[r][2] * static_cast<double>(g[6 + c]);
                for (size_t p = 0; p < kPoints; ++p) {
                    const double *h = half[p / kPatch], *k = kG[p % kPatch];
                    to[(p * inputs + input) * panel] = static_cast<float>(h[0] * k[0] + h[1] * k[1] + h[2] * k[2]);
                }
            }
        });
        return points;
    }

    Floats panel_weights(const LevelStep &step) const {
        const size_t panel = kernels_.panel, inputs = x_.channels;
        Floats weights(panels(step.outputs) * inputs);
        for (size_t output = 0; output < step.outputs; ++output)
            for (size_t input = 0; input < step.inputs; ++input)
                weights[(output / panel * inputs + input) * panel + output % panel] = step.weight[output * step.inputs + input];
        return weights;
    }

    Floats padded_bias(const LevelStep &step) const {
        Floats bias(panels(step.outputs));
        std::copy_n(step.bias.begin(), step.outputs, bias.begin());
        return bias;
    }

    const LevelKernels &kernels_;
    ThreadPool pool_;
    Pieces pieces_;
    Map x_{}, h_{};
};

} // namespace

const char *levels_isa() {
    const LevelKernels *found = kernels();
    return found == nullptr ? nullptr : found->isa;
}

void run_levels(const std::vector<LevelStep> &steps, const float *x, size_t height, size_t width, size_t threads, float *image) {
    const LevelKernels &found = *kernels();
    const size_t channels = steps.front().inputs;
    size_t positions = height * width, largest = rounded_up(channels, kBlock) * positions;
    for (const LevelStep &step : steps) {
        positions *= step.kind == LevelKind::kUpsample ? 4 : 1;
        largest = std::max(largest, rounded_up(step.outputs, kBlock) * positions);
    }
    Levels levels(found, largest, threads);
    levels.start(x, channels, height, width);
    for (const LevelStep &step : steps)
        levels.run(step, image);
}

} // namespace dlf
