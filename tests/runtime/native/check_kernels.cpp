// Holds every table of the prior's kernels that this processor can run against the scalar one, in the way of dav1d's
// checkasm: the same random state, every output compared, nothing else written. Then, asked with --time, times them. The kernels
// of the generator's levels are held against the direct method in double precision.
//
//     check_kernels [--time] [ENTROPY.BIN]
//
// With an entropy.bin it also checks that coding a second image of the same size allocates nothing.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <new>
#include <random>
#include <utility>
#include <vector>

#include "entropy/detail_coder.h"
#include "entropy/prior_tables.h"
#include "support/sha256.h"
#include "winograd/levels.h"

static size_t allocations = 0;

void *operator new(size_t size) {
    ++allocations;
    if (void *memory = std::malloc(size))
        return memory;
    throw std::bad_alloc();
}
void *operator new(size_t size, std::align_val_t align) {
    ++allocations;
    const size_t unit = static_cast<size_t>(align);
    if (void *memory = std::aligned_alloc(unit, (size + unit - 1) / unit * unit))
        return memory;
    throw std::bad_alloc();
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, size_t) noexcept { std::free(memory); }
void operator delete(void *memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void *memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

using namespace dlf;
using Random = std::mt19937;

constexpr int16_t kUntouched = 0x5A5A;

template <class T> T pick(Random &random, std::initializer_list<T> values) { return values.begin()[random() % values.size()]; }

int64_t uniform(Random &random, int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); }

// A layer within the format's bounds; some of them at the bounds.
Layer random_layer(Random &random, size_t outputs, size_t inputs) {
    Layer layer{outputs, inputs, {}, {}, {}};
    for (size_t o = 0; o < outputs; ++o) {
        int64_t left = 65535; // sum |w|
        for (size_t i = 0; i < inputs; ++i) {
            const int64_t w = random() % 4 == 0 ? pick<int64_t>(random, {-128, 127, 0}) : uniform(random, -128, 127);
            layer.w.push_back(static_cast<int8_t>(std::abs(w) <= left ? w : 0));
            left -= std::abs(int{layer.w.back()});
        }
        layer.m.push_back(static_cast<int32_t>(random() % 8 == 0 ? pick<int64_t>(random, {0, 1, INT32_MAX})
                                                                 : uniform(random, 0, 1 << pick(random, {16, 24, 28}))));
        const int64_t bound = int64_t{1} << pick(random, {40, 48, 62});
        layer.b.push_back(random() % 8 == 0 ? pick<int64_t>(random, {-bound, 0, bound}) : uniform(random, -bound, bound));
    }
    return layer;
}

std::vector<int16_t> random_activations(Random &random, size_t count) {
    std::vector<int16_t> x(count);
    const int64_t bound = pick<int64_t>(random, {1, 300, 32767});
    for (int16_t &value : x)
        value = static_cast<int16_t>(random() % 16 == 0 ? pick<int64_t>(random, {INT16_MIN, INT16_MAX, 0, -1})
                                                        : uniform(random, -bound - 1, bound));
    return x;
}

// One call's operands: the same for every table except for the layout of layers.
struct Case {
    Case(Random &random, size_t outputs_, size_t inputs_, size_t positions_)
        : outputs(outputs_), positions(positions_), x_stride((inputs_ + kMaxPanel - 1) / kMaxPanel * kMaxPanel),
          stride((outputs_ + kMaxPanel - 1) / kMaxPanel * kMaxPanel), a(random_layer(random, outputs_, inputs_)),
          b(random_layer(random, outputs_, inputs_)), depthwise(random_layer(random, outputs_, kTaps)),
          x(random_activations(random, positions * x_stride)), addend(random_activations(random, positions * stride)),
          map(random_activations(random, 3 * (positions + 2) * stride)) {
        for (size_t i = 0; i < positions * outputs; ++i)
            base.push_back(static_cast<int32_t>(uniform(random, -1000000, 1000000)));
        for (Layer *layer : {&a, &b}) // room for the base below the bound on accumulators
            for (size_t i = 0; i < layer->w.size(); ++i)
                layer->w[i] = static_cast<int8_t>(layer->w[i] * (layer->inputs > 500 ? 0.9 : 1));
    }

    size_t outputs, positions, x_stride, stride;
    Layer a, b, depthwise;
    std::vector<int16_t> x, addend, map;
    std::vector<int32_t> base; // [positions][outputs]
};

constexpr const char *kNames[] = {"leaky", "leaky with base", "add", "gate", "depthwise"};
constexpr size_t kKernels = 5;

// A case's operands in a table's layout, and the call of each kernel.
struct Operands {
    Operands(const PriorKernels &kernels_, const Case &data_)
        : kernels(kernels_), data(data_), a(data.a, kernels.layout), b(data.b, kernels.layout),
          depthwise(data.depthwise, kernels.layout) {
        // A layer whose multipliers are the base says where a layout puts each of them.
        for (size_t p = 0; p < data.positions; ++p) {
            Layer carrier{data.outputs, 1, std::vector<int8_t>(data.outputs), {}, std::vector<int64_t>(data.outputs)};
            carrier.m.assign(data.base.begin() + long(p * data.outputs), data.base.begin() + long((p + 1) * data.outputs));
            bases.emplace_back(carrier, kernels.layout);
        }
        for (const PackedLayer &base : bases)
            base_rows.push_back(base.view().m);
    }

    void call(size_t kernel, int16_t *out_) const {
        const Run<const int16_t> x = {data.x.data(), data.x_stride};
        const Run<int16_t> out = {out_, data.stride};
        switch (kernel) {
        case 0: return kernels.leaky(a.view(), x, nullptr, data.positions, out);
        case 1: return kernels.leaky(a.view(), x, base_rows.data(), data.positions, out);
        case 2: return kernels.add(a.view(), x, {data.addend.data(), data.stride}, data.positions, out);
        case 3: return kernels.gate(a.view(), b.view(), x, data.positions, out);
        default:
            return kernels.depthwise(depthwise.view(), {data.map.data(), data.stride}, (data.positions + 2) * data.stride,
                                     data.positions, out);
        }
    }

    const PriorKernels &kernels;
    const Case &data;
    PackedLayer a, b, depthwise;
    std::vector<PackedLayer> bases;
    std::vector<const int32_t *> base_rows;
};

// The outputs, [positions][outputs]; exits if the kernel wrote past its positions.
std::vector<int16_t> result(const Operands &operands, size_t kernel) {
    const Case &data = operands.data;
    std::vector<int16_t> out((data.positions + 2) * data.stride, kUntouched);
    operands.call(kernel, out.data() + data.stride);
    std::vector<int16_t> values;
    for (size_t i = 0; i < out.size(); ++i) {
        const size_t position = i / data.stride, channel = i % data.stride;
        const bool inside = 1 <= position && position <= data.positions;
        if (inside && channel < data.outputs)
            values.push_back(out[i]);
        if (!inside && out[i] != kUntouched) {
            std::printf("%s: %s wrote outside its positions\n", operands.kernels.isa, kNames[kernel]);
            std::exit(1);
        }
    }
    return values;
}

void check(const PriorKernels &kernels) {
    Random random(1);
    size_t compared = 0;
    for (int trial = 0; trial < 300; ++trial) {
        const Case data(random, pick<size_t>(random, {1, 2, 8, 24, 32, 40, 128}),
                        pick<size_t>(random, {1, 4, 8, 32, 34, 128, 528}), static_cast<size_t>(uniform(random, 1, 20)));
        const Operands scalar(kScalarKernels, data), operands(kernels, data);
        for (size_t kernel = 0; kernel < kKernels; ++kernel) {
            const std::vector<int16_t> want = result(scalar, kernel), got = result(operands, kernel);
            for (size_t i = 0; i < want.size(); ++i) {
                if (want[i] != got[i]) {
                    std::printf("%s: %s: %d, not %d, at output %zu of position %zu (%zu outputs, %zu inputs, %zu positions)\n",
                                kernels.isa, kNames[kernel], got[i], want[i], i % data.outputs, i / data.outputs, data.outputs,
                                data.a.inputs, data.positions);
                    std::exit(1);
                }
            }
            compared += want.size();
        }
    }
    std::printf("%s: %zu values equal the scalar code's\n", kernels.isa, compared);
}

// Nanoseconds of the fastest of many calls, at the released layout: 128 channels, a row of 24 positions.
void time_kernels() {
    using Clock = std::chrono::steady_clock;
    for (const PriorKernels *const *kernels = available_kernels(); *kernels != nullptr; ++kernels) {
        Random random(2);
        const Case data(random, 128, 128, 24);
        const Operands operands(**kernels, data);
        std::vector<int16_t> out(24 * 128);
        for (size_t kernel = 0; kernel < kKernels; ++kernel) {
            double best = 1e9;
            for (int i = 0; i < 200; ++i) {
                const auto begin = Clock::now();
                operands.call(kernel, out.data());
                const std::chrono::duration<double, std::nano> spent = Clock::now() - begin;
                best = spent.count() < best ? spent.count() : best;
            }
            std::printf("%-7s %-16s %8.0f ns\n", (*kernels)->isa, kNames[kernel], best);
        }
    }
}

void check_allocations(const char *path, const PriorKernels &kernels) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> data{std::istreambuf_iterator<char>(file), {}};
    const EntropyModel model(data.data(), data.size(), kernels);
    const size_t height = 8, width = 24;
    std::vector<float> y(model.channels * height * width), y_hat(y.size());
    Random random(3);
    for (float &value : y)
        value = static_cast<float>(uniform(random, -1000, 1000)) / 256;
    DetailScratch scratch;
    const auto code = [&] {
        const size_t size = encode_detail(model, y.data(), height, width, y_hat.data(), scratch);
        const auto &stream = scratch.stream;
        decode_detail(model, {stream.data() + stream.size() - size, size}, height, width, y_hat.data(), scratch);
    };
    code();
    const size_t first = allocations;
    code();
    if (first == 0 || allocations != first) {
        std::printf("%s: a second image took %zu allocations\n", kernels.isa, allocations - first);
        std::exit(1);
    }
    std::printf("%s: a second image allocates nothing\n", kernels.isa);
}

void check_sha256() {
#if defined(__x86_64__)
    if (!has_sha256_instructions())
        return;
    Random random(4);
    for (size_t count = 0; count < 40; ++count) {
        std::vector<uint8_t> data(64 * count);
        for (uint8_t &byte : data)
            byte = static_cast<uint8_t>(uniform(random, 0, 255));
        uint32_t portable[8], fast[8];
        for (size_t i = 0; i < 8; ++i)
            portable[i] = fast[i] = static_cast<uint32_t>(uniform(random, INT32_MIN, INT32_MAX));
        sha256_blocks_portable(portable, data.data(), count);
        sha256_blocks_x86(fast, data.data(), count);
        if (std::memcmp(portable, fast, sizeof portable) != 0) {
            std::printf("sha256: %zu blocks differ\n", count);
            std::exit(1);
        }
    }
    std::printf("sha256: as the portable code\n");
#endif
}

// A map [channels][height][width] of the direct method.
struct Direct {
    size_t channels, height, width;
    std::vector<double> values;
    double at(size_t channel, size_t y, size_t x) const {
        return y < height && x < width ? values[(channel * height + y) * width + x] : 0; // also where y or x wrapped below 0
    }
};

// silu(norm(map)), as a step has it.
Direct activated(const LevelStep &step, const Direct &map) {
    Direct out = map;
    const size_t each = map.values.size() / step.groups, positions = map.height * map.width;
    for (size_t group = 0; group < step.groups; ++group) {
        double mean = 0, variance = 0;
        for (size_t i = group * each; i < (group + 1) * each; ++i)
            mean += map.values[i] / double(each);
        for (size_t i = group * each; i < (group + 1) * each; ++i)
            variance += (map.values[i] - mean) * (map.values[i] - mean) / double(each);
        for (size_t i = group * each; i < (group + 1) * each; ++i) {
            const double normed = (map.values[i] - mean) / std::sqrt(variance + double(step.epsilon));
            const double value = normed * double(step.gamma[i / positions]) + double(step.beta[i / positions]);
            out.values[i] = value / (1 + std::exp(-value));
        }
    }
    return out;
}

Direct doubled(const Direct &map) {
    Direct out{map.channels, 2 * map.height, 2 * map.width, {}};
    for (size_t c = 0; c < out.channels; ++c)
        for (size_t y = 0; y < out.height; ++y)
            for (size_t x = 0; x < out.width; ++x)
                out.values.push_back(map.at(c, y / 2, x / 2));
    return out;
}

Direct convolved(const LevelStep &step, const Direct &map) {
    const size_t side = step.kind == LevelKind::kShortcut ? 1 : 3;
    Direct out{step.outputs, map.height, map.width, {}};
    for (size_t o = 0; o < step.outputs; ++o)
        for (size_t y = 0; y < map.height; ++y)
            for (size_t x = 0; x < map.width; ++x) {
                double sum = double(step.bias[o]);
                for (size_t i = 0; i < step.inputs; ++i)
                    for (size_t k = 0; k < side * side; ++k)
                        sum += double(step.weight[(o * step.inputs + i) * side * side + k]) *
                               map.at(i, y + k / side - side / 2, x + k % side - side / 2);
                out.values.push_back(sum);
            }
    return out;
}

std::vector<double> directly(const std::vector<LevelStep> &steps, Direct x) {
    Direct h{};
    for (const LevelStep &step : steps) {
        switch (step.kind) {
        case LevelKind::kFirst: h = convolved(step, activated(step, x)); break;
        case LevelKind::kShortcut: x = convolved(step, x); break;
        case LevelKind::kUpsample: x = convolved(step, doubled(x)); break;
        case LevelKind::kOutput: x = convolved(step, activated(step, x)); break;
        case LevelKind::kSecond: {
            const Direct out = convolved(step, activated(step, h));
            std::transform(x.values.begin(), x.values.end(), out.values.begin(), x.values.begin(), std::plus<>());
        }
        }
    }
    for (double &value : x.values)
        value = std::clamp(value, -1.0, 1.0);
    return x.values;
}

LevelStep::Floats random_floats(Random &random, size_t count, double mean, double deviation) {
    std::normal_distribution<double> normal(mean, deviation);
    LevelStep::Floats values(count);
    for (float &value : values)
        value = static_cast<float>(normal(random));
    return values;
}

LevelStep random_step(Random &random, LevelKind kind, size_t inputs, size_t outputs) {
    const size_t taps = kind == LevelKind::kShortcut ? 1 : 9;
    const bool is_normed = kind != LevelKind::kShortcut && kind != LevelKind::kUpsample;
    return {kind,
            inputs,
            outputs,
            is_normed ? size_t{4} : 0,
            1e-6f,
            random_floats(random, outputs * inputs * taps, 0, (kind == LevelKind::kOutput ? 0.5 : 1) / std::sqrt(inputs * taps)),
            random_floats(random, outputs, 0, 0.2),
            random_floats(random, inputs, 1, 1),
            random_floats(random, inputs, 0, 1)};
}

void check_levels(const char *isa) {
    setenv("DLF_ISA", isa, 1);
    const bool is_there = levels_isa() != nullptr;
    Random random(5);
    const std::vector<LevelStep> steps = {
        random_step(random, LevelKind::kFirst, 64, 32),    random_step(random, LevelKind::kShortcut, 64, 32),
        random_step(random, LevelKind::kSecond, 32, 32),   random_step(random, LevelKind::kFirst, 32, 48),
        random_step(random, LevelKind::kShortcut, 32, 48), random_step(random, LevelKind::kSecond, 48, 48),
        random_step(random, LevelKind::kUpsample, 48, 96), random_step(random, LevelKind::kFirst, 96, 32),
        random_step(random, LevelKind::kSecond, 32, 96),   random_step(random, LevelKind::kOutput, 96, 3),
    };
    // 104 columns are two items of work; 68 rows and 136 are a band of 64 or two, and a short one.
    for (const auto &[height, width] : {std::pair<size_t, size_t>{8, 4}, {8, 52}, {68, 4}}) {
        const LevelStep::Floats x = random_floats(random, 64 * height * width, 0, 1);
        if (!is_there)
            continue;
        const std::vector<double> expected = directly(steps, {64, height, width, {x.begin(), x.end()}});
        for (const size_t large_map : {kLargeMap, size_t{0}}) { // whole maps, and all in bands
            std::vector<float> image(expected.size());
            run_levels(steps, x.data(), height, width, 2, image.data(), large_map);
            for (size_t i = 0; i < image.size(); ++i)
                if (!(std::abs(double(image[i]) - expected[i]) <= 2e-5)) {
                    std::printf("%s: levels of %zux%zu: %g, not %g, at %zu%s\n", isa, height, width, double(image[i]),
                                expected[i], i, large_map == 0 ? " in bands" : "");
                    std::exit(1);
                }
        }
    }
    unsetenv("DLF_ISA");
    if (is_there)
        std::printf("%s: levels as by the direct method\n", isa);
}

} // namespace

int main(int count, char **arguments) {
    check_sha256();
    for (const char *isa : {"avx2", "avx512", "neon"})
        check_levels(isa);
    for (const PriorKernels *const *kernels = available_kernels(); *kernels != nullptr; ++kernels) {
        if (*kernels != &kScalarKernels)
            check(**kernels);
        if (count > 1 && std::strcmp(arguments[count - 1], "--time") != 0)
            check_allocations(arguments[count - 1], **kernels);
    }
    if (count > 1 && std::strcmp(arguments[1], "--time") == 0)
        time_kernels();
}
