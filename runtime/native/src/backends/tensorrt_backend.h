// Stages in TensorRT or TensorRT-RTX, on an NVIDIA GPU: a built-in backend, where NVIDIA's headers were there to build it.
#pragma once

#include <memory>

#include "backends/backend.h"

namespace dlf {

// Opens TensorRT's library and the first GPU. Throws a Failure.
//  library   file or folder; "" for what the environment, or else the dynamic linker, knows
std::shared_ptr<const Backend> open_tensorrt(const char *library);

} // namespace dlf
