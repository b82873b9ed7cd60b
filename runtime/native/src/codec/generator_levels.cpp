#include "codec/generator_levels.h"

#include <algorithm>
#include <cstring>
#include <system_error>

#include "support/failure.h"
#include "support/files.h"
#include "support/processors.h"

namespace dlf {
namespace {

using Floats = LevelStep::Floats;

float from_half(uint16_t bits) {
    const uint32_t sign = uint32_t{bits} >> 15 << 31, exponent = bits >> 10 & 31, fraction = bits & 1023;
    uint32_t word = sign | (exponent + 112) << 23 | fraction << 13;
    if (exponent == 31)
        word = sign | 0x7F800000 | fraction << 13;
    float value;
    std::memcpy(&value, &word, sizeof value);
    if (exponent == 0) { // as many times 2^-24
        value = static_cast<float>(fraction) / 16777216;
        value = sign == 0 ? value : -value;
    }
    return value;
}

template <class T> std::vector<T> values_of(const File &file, const LevelTensor &tensor) {
    std::vector<T> values(tensor.count());
    if (!file.read_at(tensor.offset, values.data(), values.size() * sizeof(T)))
        throw std::system_error(EIO, std::generic_category());
    return values;
}

Floats floats_of(const File &file, const LevelTensor &tensor) {
    Floats floats(tensor.count());
    if (tensor.type == LevelTensor::Type::kFloat32) {
        const std::vector<float> values = values_of<float>(file, tensor);
        std::copy(values.begin(), values.end(), floats.begin());
    } else if (tensor.type == LevelTensor::Type::kFloat16) {
        const std::vector<uint16_t> values = values_of<uint16_t>(file, tensor);
        std::transform(values.begin(), values.end(), floats.begin(), from_half);
    } else {
        const std::vector<int8_t> values = values_of<int8_t>(file, tensor);
        std::copy(values.begin(), values.end(), floats.begin());
    }
    return floats;
}

// The 3x3 kernels (outputs, inputs) whose doubling is the transposed convolution of 4x4 kernels (inputs, outputs).
//
// Along an axis a kernel (a, b, c) on a doubled map is (a, a + b, b + c, c) on the map itself; below is the inverse, by least
// squares, since the sums are rounded, in int8 coarsely. A convolution is a correlation with the kernel turned round.
Floats undoubled(const Floats &kernels, size_t inputs, size_t outputs) {
    static constexpr double kInverse[3][4] = {{0.75, 0.25, -0.25, 0.25}, {-0.5, 0.5, 0.5, -0.5}, {0.25, -0.25, 0.25, 0.75}};
    Floats found(inputs * outputs * 9);
    for (size_t input = 0; input < inputs; ++input) {
        for (size_t output = 0; output < outputs; ++output) {
            const float *from = kernels.data() + (input * outputs + output) * 16;
            float *to = found.data() + (output * inputs + input) * 9;
            for (size_t row = 0; row < 3; ++row) {
                for (size_t column = 0; column < 3; ++column) {
                    double sum = 0;
                    for (size_t r = 0; r < 4; ++r)
                        for (size_t c = 0; c < 4; ++c)
                            sum += kInverse[row][r] * kInverse[column][c] * static_cast<double>(from[4 * r + c]);
                    to[3 * (2 - row) + 2 - column] = static_cast<float>(sum);
                }
            }
        }
    }
    return found;
}

Floats weight_of(const File &file, const ListedStep &step) {
    Floats weight = floats_of(file, step.weight);
    const bool is_transposed = step.weight.shape[2] == 4;
    if (step.scale.has_value()) {
        const Floats scale = floats_of(file, *step.scale);
        const size_t kernel = step.weight.shape[2] * step.weight.shape[3];
        for (size_t i = 0; i < weight.size(); ++i)
            weight[i] *= scale[is_transposed ? i / kernel % step.outputs : i / kernel / step.inputs];
    }
    return is_transposed ? undoubled(weight, step.inputs, step.outputs) : weight;
}

LevelStep loaded(const File &file, const ListedStep &step) {
    const auto floats = [&](const std::optional<LevelTensor> &tensor) {
        return tensor.has_value() ? floats_of(file, *tensor) : Floats();
    };
    return {step.kind,         step.inputs,        step.outputs,     step.groups, step.epsilon, weight_of(file, step),
            floats(step.bias), floats(step.gamma), floats(step.beta)};
}

} // namespace

std::unique_ptr<const GeneratorLevels> GeneratorLevels::open(Bundle &bundle, uint32_t threads) {
    const std::optional<LevelList> &list = bundle.levels();
    if (!list.has_value() || levels_isa() == nullptr)
        return nullptr;
    return std::unique_ptr<const GeneratorLevels>(new GeneratorLevels(bundle, *list, threads));
}

GeneratorLevels::GeneratorLevels(Bundle &bundle, const LevelList &list, uint32_t threads)
    : stage_(list.stage), threads_(threads) {
    const std::filesystem::path path = bundle.file(list.file);
    try {
        const File file(path);
        for (const ListedStep &step : list.steps)
            steps_.push_back(loaded(file, step));
    } catch (const std::system_error &error) {
        fail(DLF_ERROR_BUNDLE_BROKEN, "Bundle " + bundle.folder().string() + ": " + list.file + " cannot be read (" +
                                          error.code().message() + "); export or download the bundle again.");
    }
}

void GeneratorLevels::run(const float *base, size_t height, size_t width, float *image) const {
    const size_t usable = usable_processors();
    run_levels(steps_, base, height, width, threads_ == 0 ? usable : std::min<size_t>(threads_, usable), image);
}

} // namespace dlf
