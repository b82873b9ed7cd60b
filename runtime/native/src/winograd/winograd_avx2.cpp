#include <cstddef>

namespace dlf {
namespace {
constexpr size_t kLanes = 8, kVectors = 2, kRows = 6;
} // namespace
} // namespace dlf

#include "winograd/winograd_simd.h"

namespace dlf {

const LevelKernels kAvx2LevelKernels = {"avx2", kPanel, convolve, pointwise, moments};

} // namespace dlf
