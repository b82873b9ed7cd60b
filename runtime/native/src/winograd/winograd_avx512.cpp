#include <cstddef>

namespace dlf {
namespace {
constexpr size_t kLanes = 16, kVectors = 2, kRows = 12;
} // namespace
} // namespace dlf

#include "winograd/winograd_simd.h"

namespace dlf {

const LevelKernels kAvx512LevelKernels = {"avx512", kPanel, convolve, pointwise, moments};

} // namespace dlf
