// In place of tensorrt_backend.cpp, where CMake found no headers of NVIDIA's.
#include "backends/tensorrt_backend.h"
#include "support/failure.h"

namespace dlf {

std::shared_ptr<const Backend> open_tensorrt(const char *) {
    fail(DLF_ERROR_BACKEND_MISSING, "This libdlf was built without TensorRT; build it again where CMake finds NvInferRuntime.h "
                                    "(of TensorRT or TensorRT-RTX) and cuda_runtime_api.h (of CUDA).");
}

} // namespace dlf
