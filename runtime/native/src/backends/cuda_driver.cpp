#include "backends/cuda_driver.h"

#include <utility>

#include "support/failure.h"
#include "support/shared_library.h"

namespace dlf {

Gpu::Gpu() : Functions() {
    const SharedLibrary library("NVIDIA's driver", "libcuda.so.1", "install NVIDIA's driver for the GPU");
#define DLF_LOOK_UP(name, parameters) library.look_up(name, #name);
    DLF_CUDA_FUNCTIONS(DLF_LOOK_UP)
#undef DLF_LOOK_UP
    char text[256] = "";
    int major = 0, minor = 0;
    check(cuInit(0), "cuInit");
    check(cuDeviceGet(&device_, 0), "cuDeviceGet");
    check(cuDeviceGetName(text, sizeof text, device_), "cuDeviceGetName");
    check(cuDeviceGetAttribute(&major, cuda::kComputeCapabilityMajor, device_), "cuDeviceGetAttribute");
    check(cuDeviceGetAttribute(&minor, cuda::kComputeCapabilityMinor, device_), "cuDeviceGetAttribute");
    name_ = text;
    architecture_ = "sm_" + std::to_string(major) + std::to_string(minor);
    check(cuDevicePrimaryCtxRetain(&context_, device_), "cuDevicePrimaryCtxRetain");
}

Gpu::~Gpu() { cuDevicePrimaryCtxRelease_v2(device_); }

void Gpu::check(cuda::Result result, const char *name) const {
    if (result == 0)
        return;
    const char *text = nullptr;
    cuGetErrorString(result, &text);
    fail(result == cuda::kOutOfMemory ? DLF_ERROR_OUT_OF_MEMORY : DLF_ERROR_BACKEND_FAILED,
         std::string("CUDA: ") + name + " failed (" + (text == nullptr ? "unknown error" : text) + ", " + std::to_string(result) +
             ")");
}

CurrentGpu::CurrentGpu(const Gpu &gpu) noexcept : gpu_(gpu), pushed_(gpu.cuCtxPushCurrent_v2(gpu.context_) == 0) {}

CurrentGpu::~CurrentGpu() {
    CUctx_st *popped = nullptr;
    if (pushed_)
        gpu_.cuCtxPopCurrent_v2(&popped);
}

Stream::Stream(const Gpu &gpu) : gpu_(gpu) { gpu.check(gpu.cuStreamCreate(&stream_, cuda::kNonBlocking), "cuStreamCreate"); }

Stream::~Stream() { gpu_.cuStreamDestroy_v2(stream_); }

void Stream::upload(cuda::Address to, const void *from, size_t bytes) const {
    gpu_.check(gpu_.cuMemcpyHtoDAsync_v2(to, from, bytes, stream_), "cuMemcpyHtoDAsync");
}

void Stream::download(void *to, cuda::Address from, size_t bytes) const {
    gpu_.check(gpu_.cuMemcpyDtoHAsync_v2(to, from, bytes, stream_), "cuMemcpyDtoHAsync");
}

void Stream::wait() const { gpu_.check(gpu_.cuStreamSynchronize(stream_), "cuStreamSynchronize"); }

DeviceBuffer::DeviceBuffer(DeviceBuffer &&other) noexcept
    : gpu_(other.gpu_), address_(std::exchange(other.address_, 0)), bytes_(std::exchange(other.bytes_, 0)) {}

cuda::Address DeviceBuffer::reserve(size_t bytes) {
    if (bytes > bytes_) {
        release();
        gpu_->check(gpu_->cuMemAlloc_v2(&address_, bytes), "cuMemAlloc");
        bytes_ = bytes;
    }
    return address_;
}

void DeviceBuffer::release() {
    if (bytes_ > 0)
        gpu_->cuMemFree_v2(address_);
    address_ = bytes_ = 0;
}

} // namespace dlf
