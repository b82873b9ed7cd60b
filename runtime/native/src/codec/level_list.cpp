#include "codec/level_list.h"

#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

#include "codec/level_list_json.h"
#include "support/failure.h"
#include "support/formats.h"

namespace dlf {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxSteps = 256;
constexpr size_t kMaxSide = 1 << 16; // of a tensor: no product of four overflows, the last two being at most 4
constexpr size_t kDoublings = 4;     // from the latent's 16 positions a tile to 256 pixels
constexpr size_t kColours = 3;

[[noreturn]] void refuse(size_t step, const std::string &fact) {
    fail(DLF_ERROR_BUNDLE_BROKEN, "lists levels of which step " + std::to_string(step) + " " + fact);
}

size_t size_from(const Json &value, size_t step, const char *name, size_t most) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() == 0 || value.get<uint64_t>() > most)
        refuse(step, std::string("has no ") + name + " from 1 to " + std::to_string(most));
    return value.get<size_t>();
}

LevelTensor tensor_from(const Json &entry, size_t step) {
    LevelTensor tensor{};
    const std::string dtype = entry.at("dtype").get<std::string>();
    if (dtype == "float32")
        tensor.type = LevelTensor::Type::kFloat32;
    else if (dtype == "float16")
        tensor.type = LevelTensor::Type::kFloat16;
    else if (dtype == "int8")
        tensor.type = LevelTensor::Type::kInt8;
    else
        refuse(step, "has a tensor of a dtype that is none of float32, float16 and int8");
    const auto &sides = entry.at("shape").get_ref<const Json::array_t &>();
    if (sides.size() != 1 && sides.size() != 4)
        refuse(step, "has a tensor of neither 1 nor 4 dimensions");
    for (const Json &side : sides)
        tensor.shape.push_back(size_from(side, step, "shape with sides", kMaxSide));
    const Json &offset = entry.at("offset");
    if (!offset.is_number_unsigned())
        refuse(step, "has a tensor without an offset");
    tensor.offset = offset.get<uint64_t>();
    return tensor;
}

LevelTensor vector_from(const Json &entry, size_t step, const char *name, size_t length) {
    LevelTensor tensor = tensor_from(entry, step);
    if (tensor.shape != std::vector<size_t>{length} || tensor.type == LevelTensor::Type::kInt8)
        refuse(step, std::string("has a ") + name + " that is no vector of " + std::to_string(length) + " floats");
    return tensor;
}

LevelKind kind_from(const Json &entry, size_t step) {
    static constexpr std::pair<const char *, LevelKind> kKinds[] = {{"first", LevelKind::kFirst},
                                                                    {"second", LevelKind::kSecond},
                                                                    {"shortcut", LevelKind::kShortcut},
                                                                    {"upsample", LevelKind::kUpsample},
                                                                    {"output", LevelKind::kOutput}};
    const std::string name = entry.at("kind").get<std::string>();
    for (const auto &[known, kind] : kKinds)
        if (name == known)
            return kind;
    refuse(step, "is of a kind that is not known");
}

// What a weight's shape says of inputs and outputs, if it is one for the kind.
void take_shape(ListedStep &step, size_t at) {
    const std::vector<size_t> &shape = step.weight.shape;
    const size_t side = step.kind == LevelKind::kShortcut ? 1 : 3;
    const bool transposed = step.kind == LevelKind::kUpsample && shape.size() == 4 && shape[2] == 4 && shape[3] == 4;
    if (shape.size() != 4 || (!transposed && (shape[2] != side || shape[3] != side)))
        refuse(at, "has a weight whose shape is not one of its kind");
    step.inputs = shape[1];
    step.outputs = shape[0];
    if (transposed)
        std::swap(step.inputs, step.outputs);
}

ListedStep step_from(const Json &entry, size_t at) {
    ListedStep step{};
    step.kind = kind_from(entry, at);
    step.weight = tensor_from(entry.at("weight"), at);
    take_shape(step, at);
    step.bias = vector_from(entry.at("bias"), at, "bias", step.outputs);
    if (step.weight.type == LevelTensor::Type::kInt8)
        step.scale = vector_from(entry.at("weight").at("scale"), at, "scale", step.outputs);
    if (step.kind == LevelKind::kShortcut || step.kind == LevelKind::kUpsample)
        return step;
    step.groups = size_from(entry.at("groups"), at, "groups", step.inputs);
    if (step.inputs % step.groups != 0)
        refuse(at, "has groups that do not divide its channels");
    const double epsilon = entry.at("epsilon").get<double>();
    if (!(epsilon > 0 && epsilon <= 1))
        refuse(at, "has no epsilon above 0 and at most 1");
    step.epsilon = static_cast<float>(epsilon);
    step.gamma = vector_from(entry.at("gamma"), at, "gamma", step.inputs);
    step.beta = vector_from(entry.at("beta"), at, "beta", step.inputs);
    return step;
}

// Whether each step is given what the one before it leaves, see docs/format.md.
void check_order(const std::vector<ListedStep> &steps) {
    size_t x = steps.front().inputs, h = 0, doublings = 0; // channels of both maps; 0: there is no h
    bool is_widened = false;
    for (size_t at = 0; at < steps.size(); ++at) {
        const ListedStep &step = steps[at];
        const bool inside = step.kind == LevelKind::kSecond || step.kind == LevelKind::kShortcut;
        if (inside != (h != 0) || (step.kind == LevelKind::kShortcut && is_widened) ||
            (step.kind == LevelKind::kOutput) != (at + 1 == steps.size()))
            refuse(at, "is out of order");
        if (step.inputs != (step.kind == LevelKind::kSecond ? h : x) || (step.kind == LevelKind::kSecond && step.outputs != x) ||
            (step.kind == LevelKind::kOutput && step.outputs != kColours))
            refuse(at, "has a weight that does not fit the maps");
        is_widened = step.kind == LevelKind::kShortcut;
        doublings += step.kind == LevelKind::kUpsample ? 1 : 0;
        if (step.kind == LevelKind::kFirst)
            h = step.outputs;
        else if (step.kind == LevelKind::kSecond)
            h = 0;
        else
            x = step.outputs;
    }
    if (doublings != kDoublings)
        fail(DLF_ERROR_BUNDLE_BROKEN,
             "lists levels that double the map " + std::to_string(doublings) + " times, not " + std::to_string(kDoublings));
}

} // namespace

size_t LevelTensor::count() const { return std::accumulate(shape.begin(), shape.end(), size_t{1}, std::multiplies<>()); }

size_t LevelTensor::bytes() const { return count() * (type == Type::kFloat32 ? 4 : type == Type::kFloat16 ? 2 : 1); }

LevelList read_level_list(const Json &entry) {
    LevelList list = {entry.at("stage").get<std::string>(), entry.at("file").get<std::string>(), {}};
    const auto &steps = entry.at("steps").get_ref<const Json::array_t &>();
    if (steps.empty() || steps.size() > kMaxSteps)
        fail(DLF_ERROR_BUNDLE_BROKEN, "lists levels of no steps, or of more than " + std::to_string(kMaxSteps));
    for (const Json &step : steps)
        list.steps.push_back(step_from(step, list.steps.size()));
    check_order(list.steps);
    return list;
}

} // namespace dlf
