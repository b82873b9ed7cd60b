// Stages in OpenVINO, on the CPU: the built-in backend.
#pragma once

#include <cstdint>
#include <memory>

#include "backends/backend.h"

namespace dlf {

constexpr const char *kOpenVINO = "openvino";

// Opens OpenVINO's C library and starts it. Throws a Failure.
//  library   file or folder; NULL for what the environment, or else the dynamic linker, knows
//  threads   CPU threads, 0 for its own choice
std::shared_ptr<const Backend> open_openvino(const char *library, uint32_t threads);

} // namespace dlf
