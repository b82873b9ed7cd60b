// The first NVIDIA GPU, through CUDA's driver: its primary context, which all libraries in the process share, streams, memory.
#pragma once

#include <string>

#include "backends/cuda_api.h"

namespace dlf {

class Gpu : public cuda::Functions {
public:
    Gpu(); // throws a Failure: BACKEND_MISSING without a driver, BACKEND_FAILED without a GPU
    ~Gpu();
    Gpu(const Gpu &) = delete;
    Gpu &operator=(const Gpu &) = delete;

    const std::string &name() const { return name_; }
    const std::string &architecture() const { return architecture_; } // such as "sm_89"

    // Throws a Failure if the driver's function `name` refused.
    void check(cuda::Result result, const char *name) const;

private:
    friend class CurrentGpu;

    cuda::Device device_ = 0;
    CUctx_st *context_ = nullptr;
    std::string name_, architecture_;
};

// Makes a GPU the calling thread's, as long as it lives. Whatever is done with a GPU, and TensorRT, is done while it is. Where
// the driver refuses, what is done next fails.
class CurrentGpu {
public:
    explicit CurrentGpu(const Gpu &gpu) noexcept;
    ~CurrentGpu();
    CurrentGpu(const CurrentGpu &) = delete;
    CurrentGpu &operator=(const CurrentGpu &) = delete;

private:
    const Gpu &gpu_;
    bool pushed_;
};

// A stream; work on it is done in order. Functions throw a Failure.
class Stream {
public:
    explicit Stream(const Gpu &gpu);
    ~Stream();
    Stream(const Stream &) = delete;
    Stream &operator=(const Stream &) = delete;

    CUstream_st *get() const { return stream_; }
    void upload(cuda::Address to, const void *from, size_t bytes) const; // `from` is kept until `wait`; the next likewise
    void download(void *to, cuda::Address from, size_t bytes) const;
    void wait() const; // for all work that is on it

private:
    const Gpu &gpu_;
    CUstream_st *stream_ = nullptr;
};

// Memory of the GPU that grows as needed; what was in it is lost then.
class DeviceBuffer {
public:
    explicit DeviceBuffer(const Gpu &gpu) : gpu_(&gpu) {}
    ~DeviceBuffer() { release(); }
    DeviceBuffer(DeviceBuffer &&other) noexcept;
    DeviceBuffer &operator=(DeviceBuffer &&) = delete;

    // At least `bytes` of it. No work that uses what was there may be under way. Throws a Failure, also OUT_OF_MEMORY.
    cuda::Address reserve(size_t bytes);
    cuda::Address address() const { return address_; }

private:
    void release();

    const Gpu *gpu_;
    cuda::Address address_ = 0;
    size_t bytes_ = 0;
};

} // namespace dlf
