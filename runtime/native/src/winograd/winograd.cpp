#include "winograd/winograd.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
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
    void next_is_x() { std::swap(pieces_[0], pieces_[2]); }

    // Gives the pages that lie wholly within the floats back to the system; they are of no more use.
    static void give_back(float *values, size_t floats) {
        const auto at = reinterpret_cast<uintptr_t>(values);
        const size_t first = rounded_up(at, kPage), end = (at + floats * sizeof(float)) / kPage * kPage;
        if (first < end)
            madvise(reinterpret_cast<char *>(values) + (first - at), end - first, MADV_DONTNEED);
    }

private:
    static constexpr size_t kHugePage = size_t{1} << 21, kPage = size_t{1} << 16; // pages are of 4 KB, of 64 on some Arm systems
    struct Free {
        void operator()(float *values) const { std::free(values); }
    };
    using Piece = std::unique_ptr<float, Free>;
    Piece pieces_[3];
};

class Levels {
public:
    Levels(const LevelKernels &kernels, size_t largest, size_t threads) : kernels_(kernels), pool_(threads), pieces_(largest) {}

    size_t positions() const { return x_.height * x_.width; }

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
        case LevelKind::kShortcut:
            mix(panel_weights(step), padded_bias(step), channels, 0, x_.height);
            return set_channels(channels);
        case LevelKind::kUpsample: return upsample(step);
        case LevelKind::kOutput: return write(step, out);
        }
    }

    // kFirst, kShortcut (NULL for none) and kSecond, in bands: what `run` gives, without a map of h, which is computed twice: for
    // its statistics, and for what reads it.
    //
    // A band's rows of x are replaced once all of h that reads them is there. h is a tile ahead: its next rows read none that were
    // replaced, and its last two tiles stay for the next band, which reads a row above its own.
    void run_block(const LevelStep &first, const LevelStep *shortcut, const LevelStep &second) {
        const size_t height = x_.height, width = x_.width, channels = padded(first.outputs);
        Floats memory(channels * width * (kBandRows + 2 * kTile));
        Weights to_h = weights_of(first, x_.channels), to_x = weights_of(second, channels);
        normalise(first, x_, to_h);
        Moments all(channels);
        in_bands(height, [&](size_t top, size_t rows) {
            const Map band = {memory.data(), channels, rows, width, top};
            convolve(to_h, x_, band, false, height, top, rows);
            all.add(moments_of(band));
        });
        all.give(second, to_x.scale, to_x.shift);

        const Floats pointwise = shortcut == nullptr ? Floats() : panel_weights(*shortcut);
        const Floats pointwise_bias = shortcut == nullptr ? Floats() : padded_bias(*shortcut);
        Map h = {memory.data(), channels, kBandRows + 2 * kTile, width}, out = x_;
        out.channels = padded(second.outputs);
        size_t computed = 0;
        in_bands(height, [&](size_t top, size_t rows) {
            if (top > 0)
                drop_above(h, top - kTile, computed);
            const size_t wanted = std::min(height, top + rows + kTile);
            convolve(to_h, x_, h, false, height, computed, wanted - computed);
            computed = wanted;
            if (shortcut != nullptr)
                mix(pointwise, pointwise_bias, out.channels, top, rows);
            convolve(to_x, h, out, true, height, top, rows);
        });
        set_channels(out.channels);
    }

private:
    static constexpr size_t kBandRows = 16 * kTile;

    struct Weights {
        Floats points, bias, scale, shift; // scale and shift: of the norm, empty for none
    };

    // The mean and variance of each channel of a map, by bands.
    struct Moments {
        explicit Moments(size_t channels) : mean(channels), variance(channels) {}

        void add(const Moments &band) {
            const double total = count + band.count, share = band.count / total;
            for (size_t c = 0; c < mean.size(); ++c) {
                const double delta = band.mean[c] - mean[c];
                mean[c] += delta * share;
                variance[c] += (band.variance[c] - variance[c]) * share + delta * delta * share * (1 - share);
            }
            count = total;
        }

        // GroupNorm as x * scale + shift.
        void give(const LevelStep &step, Floats &scale, Floats &shift) const {
            scale.resize(mean.size());
            shift.resize(mean.size());
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

        std::vector<double> mean, variance;
        double count = 0;
    };

    // band(top, rows) for each band of a map, from the top down.
    template <class Band> static void in_bands(size_t height, const Band &band) {
        for (size_t top = 0; top < height; top += kBandRows)
            band(top, std::min(kBandRows, height - top));
    }

    // Moves the rows from `top` to `end` to the start of a band.
    static void drop_above(Map &band, size_t top, size_t end) {
        const size_t line = band.width * kBlock;
        for (size_t block = 0; block < band.channels / kBlock; ++block) {
            float *const rows = band.values + block * band.height * line;
            std::memmove(rows, rows + (top - band.top) * line, (end - top) * line * sizeof(float));
        }
        band.top = top;
    }

    // Maps have whole blocks of channels, and weights whole panels of outputs; those that a step does not have are 0.
    static size_t padded(size_t channels) { return rounded_up(channels, kBlock); }
    size_t panels(size_t outputs) const { return rounded_up(padded(outputs), kernels_.panel); }

    // x with other channels, in place.
    void set_channels(size_t channels) {
        if (channels < x_.channels)
            Pieces::give_back(x_.values + channels * positions(), (x_.channels - channels) * positions());
        x_.channels = channels;
    }

    // In bands: the most is held where the last map is made of the one before. Rows that are read no more go back.
    void upsample(const LevelStep &step) {
        Pieces::give_back(h_.values, h_.channels * h_.height * h_.width);
        const size_t line = x_.width * kBlock;
        const Map next = pieces_.next(padded(step.outputs), 2 * x_.height, 2 * x_.width);
        const Weights weights = weights_of(step, x_.channels);
        in_bands(next.height, [&](size_t top, size_t rows) {
            convolve(weights, x_, next, false, next.height, top, rows, true);
            const size_t done = top + rows < next.height ? (top + rows) / 2 - 1 : x_.height;
            for (size_t block = 0; block < x_.channels / kBlock; ++block)
                Pieces::give_back(x_.values + block * x_.height * line, done * line);
        });
        pieces_.next_is_x();
        x_ = next;
    }

    // The shortcut of rows of x, in place, by way of a row of each thread's: a second map would be the most that is ever held. Of
    // more channels the last blocks lie behind x, in the same piece.
    void mix(const Floats &weights, const Floats &bias, size_t channels, size_t top, size_t rows) {
        const size_t line = x_.width * kBlock, blocks = channels / kBlock;
        Floats memory(pool_.size() * channels * x_.width);
        pool_.run(rows, [&](size_t row, size_t thread) {
            const Map out = {memory.data() + thread * channels * x_.width, channels, 1, x_.width};
            Map in = x_;
            in.values += (top + row) * line;
            kernels_.pointwise(in, weights.data(), bias.data(), out, 0);
            for (size_t block = 0; block < blocks; ++block)
                std::copy_n(out.values + block * line, line, in.values + block * x_.height * line);
        });
    }

    // The image by bands of what the convolution gives, clamped.
    void write(const LevelStep &step, float *image) {
        const size_t height = x_.height, width = x_.width, channels = padded(step.outputs), line = width * kBlock;
        Floats memory(channels * width * kBandRows);
        Weights weights = weights_of(step, x_.channels);
        normalise(step, x_, weights);
        in_bands(height, [&](size_t top, size_t rows) {
            const Map band = {memory.data(), channels, rows, width, top};
            convolve(weights, x_, band, false, height, top, rows);
            pool_.run(rows, [&](size_t row, size_t) {
                for (size_t channel = 0; channel < step.outputs; ++channel) {
                    const float *from = band.values + (channel / kBlock * rows + row) * line + channel % kBlock;
                    float *to = image + (channel * height + top + row) * width;
                    for (size_t i = 0; i < width; ++i)
                        to[i] = std::clamp(from[i * kBlock], -1.0f, 1.0f); // NaN stays
                }
            });
        });
    }

    void convolve(const LevelStep &step, const Map &x, const Map &out, bool add) {
        Weights weights = weights_of(step, x.channels);
        normalise(step, x, weights);
        convolve(weights, x, out, add, out.height, 0, out.height);
    }

    // Rows of a map of `height` rows, from `first` on.
    void convolve(const Weights &weights, const Map &x, const Map &out, bool add, size_t height, size_t first, size_t rows,
                  bool upsample = false) {
        const float *scale = weights.scale.empty() ? nullptr : weights.scale.data();
        const Convolution work = {
            x, scale, weights.shift.data(), weights.points.data(), weights.bias.data(), out, upsample, add, height, first, rows};
        const size_t each = rounded_up(convolution_scratch(x.channels, kernels_.panel), kBlock);
        Floats scratch(each * pool_.size());
        pool_.run(convolution_items(work),
                  [&](size_t item, size_t thread) { kernels_.convolve(work, item, scratch.data() + thread * each); });
    }

    Weights weights_of(const LevelStep &step, size_t inputs) { return {point_weights(step, inputs), padded_bias(step), {}, {}}; }

    void normalise(const LevelStep &step, const Map &x, Weights &weights) {
        moments_of(x).give(step, weights.scale, weights.shift);
    }

    Moments moments_of(const Map &x) {
        Moments found(x.channels);
        found.count = static_cast<double>(x.height * x.width);
        pool_.run(x.channels / kBlock, [&](size_t block, size_t) {
            kernels_.moments(x, block, found.mean.data() + block * kBlock, found.variance.data() + block * kBlock);
        });
        return found;
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

void run_levels(const std::vector<LevelStep> &steps, const float *x, size_t height, size_t width, size_t threads, float *image,
                size_t large_map) {
    const LevelKernels &found = *kernels();
    const size_t channels = steps.front().inputs;
    size_t positions = height * width, largest = rounded_up(channels, kBlock) * positions;
    for (const LevelStep &step : steps) {
        positions *= step.kind == LevelKind::kUpsample ? 4 : 1;
        largest = std::max(largest, rounded_up(step.outputs, kBlock) * positions);
    }
    Levels levels(found, largest, threads);
    levels.start(x, channels, height, width);
    for (size_t i = 0; i < steps.size(); ++i) {
        if (steps[i].kind == LevelKind::kFirst && levels.positions() >= large_map) {
            const LevelStep &first = steps[i++];
            const LevelStep *shortcut = steps[i].kind == LevelKind::kShortcut ? &steps[i++] : nullptr;
            levels.run_block(first, shortcut, steps[i]);
        } else {
            levels.run(steps[i], image);
        }
    }
}

} // namespace dlf
