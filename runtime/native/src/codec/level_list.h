// The upper levels of the pixel generator as a manifest lists them: section 4 of docs/format.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "winograd/levels.h"

namespace dlf {

// Where a tensor lies in the file of weights.
struct LevelTensor {
    enum class Type { kFloat32, kFloat16, kInt8 };
    Type type;
    std::vector<size_t> shape;
    uint64_t offset;

    size_t count() const;
    size_t bytes() const;
};

struct ListedStep {
    LevelKind kind;
    size_t inputs, outputs, groups; // groups: 0 where no norm comes before the convolution
    float epsilon;
    LevelTensor weight, bias;
    std::optional<LevelTensor> scale, gamma, beta; // scale: of a weight in int8; the others: of the norm
};

struct LevelList {
    std::string stage; // that gives the map which enters the levels
    std::string file;  // of weights
    std::vector<ListedStep> steps;
};

} // namespace dlf
