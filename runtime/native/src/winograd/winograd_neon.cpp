#include <cstddef>

namespace dlf {
namespace {
constexpr size_t kLanes = 4, kVectors = 4, kRows = 6;
} // namespace
} // namespace dlf

#include "winograd/winograd_simd.h"

namespace dlf {

const LevelKernels kNeonLevelKernels = {"neon", kPanel, convolve, pointwise, moments};

} // namespace dlf
