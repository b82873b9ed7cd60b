// An engine of TensorRT's on the GPU, run by several threads at a time.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <NvInferRuntime.h>

#include "backends/cuda_driver.h"
#include "dlf.h"

namespace dlf {

// TensorRT's messages: they are logged, and the last error is kept, since its functions do not return it.
class TensorRTLogger : public nvinfer1::ILogger {
public:
    void log(Severity severity, const char *text) noexcept override;

    // Throws a Failure, BACKEND_FAILED: what could not be done, and the last error.
    [[noreturn]] void fail(const std::string &what);

private:
    std::mutex mutex_;
    std::string last_error_;
};

// An engine set up for runs of one batch after the other: a context, and the memory of its tensors.
struct Lane {
    explicit Lane(const Gpu &its_gpu) : gpu(its_gpu), stream(gpu), scratch(gpu) {}
    ~Lane() { gpu.cuStreamSynchronize(stream.get()); } // where a run failed, work may be under way
    Lane(const Lane &) = delete;
    Lane &operator=(const Lane &) = delete;

    const Gpu &gpu;

    Stream stream;
    DeviceBuffer scratch;
    std::vector<DeviceBuffer> buffers;       // of each tensor, by its number in the engine
    std::vector<std::vector<float>> results; // likewise; of outputs alone
    std::optional<size_t> profile;
    std::unique_ptr<nvinfer1::IExecutionContext> context; // the last, so that it goes first
};

// An engine that has been loaded. The GPU is current in all that is done with it; gpu and logger must outlive it.
class OpenEngine {
public:
    OpenEngine(const Gpu &gpu, TensorRTLogger &logger, std::unique_ptr<nvinfer1::ICudaEngine> engine); // throws a Failure

    // Runs it with one of its profiles; the lane holds the outputs until it is taken back. Throws a Failure.
    std::unique_ptr<Lane> run(size_t profile, const dlf_tensor *inputs, size_t input_count, dlf_tensor *outputs,
                              size_t &output_count);

    void take_back(std::unique_ptr<Lane> lane) noexcept;

private:
    struct Tensor {
        std::string name;
        bool is_input;
    };

    void require(bool done, const char *what) const;
    std::unique_ptr<Lane> free_lane();
    void give(Lane &lane, size_t i, const dlf_tensor &input) const; // input i, and its values
    dlf_tensor receiver(Lane &lane, size_t i) const;                // where output i will be, on the GPU and then here

    const Gpu &gpu_;
    TensorRTLogger &logger_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::vector<Tensor> tensors_;
    std::mutex mutex_;                        // of what follows
    std::vector<std::unique_ptr<Lane>> free_; // as many as ran at the same time
    size_t lanes_ = 0;
};

} // namespace dlf
