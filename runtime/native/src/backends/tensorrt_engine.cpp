#include "backends/tensorrt_engine.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "backends/batch_size.h"
#include "support/failure.h"
#include "support/log.h"

namespace dlf {
namespace {

size_t element_count(const dlf_tensor &tensor) {
    return std::accumulate(tensor.shape, tensor.shape + tensor.rank, size_t{1}, std::multiplies<>());
}

size_t bytes_of(const std::vector<float> &values) { return values.size() * sizeof(float); }

void *pointer(cuda::Address address) { return reinterpret_cast<void *>(address); }

} // namespace

void TensorRTLogger::log(Severity severity, const char *text) noexcept {
    if (severity > Severity::kWARNING)
        return;
    try {
        dlf::log(DLF_LOG_DEBUG, (std::string("TensorRT: ") + text).c_str());
        const std::lock_guard<std::mutex> lock(mutex_);
        if (severity <= Severity::kERROR)
            last_error_ = text;
    } catch (...) { // no memory to keep it
    }
}

void TensorRTLogger::fail(const std::string &what) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::string reason = std::exchange(last_error_, {});
    dlf::fail(DLF_ERROR_BACKEND_FAILED, "TensorRT could not " + what + (reason.empty() ? "" : ": " + reason));
}

OpenEngine::OpenEngine(const Gpu &gpu, TensorRTLogger &logger, std::unique_ptr<nvinfer1::ICudaEngine> engine)
    : gpu_(gpu), logger_(logger), engine_(std::move(engine)) {
    for (int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
        const char *name = engine_->getIOTensorName(i);
        const bool is_input = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
        if (engine_->getTensorDataType(name) != nvinfer1::DataType::kFLOAT)
            fail(DLF_ERROR_BACKEND_FAILED, std::string("its engine has '") + name + "' not in float32; export the bundle again");
        tensors_.push_back({name, is_input});
    }
    const auto is_output = [](const Tensor &tensor) { return !tensor.is_input; };
    if (std::count_if(tensors_.begin(), tensors_.end(), is_output) > DLF_MAX_OUTPUTS)
        fail(DLF_ERROR_BACKEND_FAILED, "its engine has more than " DLF_TEXT(DLF_MAX_OUTPUTS) " outputs");
}

std::unique_ptr<Lane> OpenEngine::run(size_t profile, const dlf_tensor *inputs, size_t input_count, dlf_tensor *outputs,
                                      size_t &output_count) {
    std::unique_ptr<Lane> lane = free_lane();
    nvinfer1::IExecutionContext &context = *lane->context;
    if (lane->profile != profile) {
        require(context.setOptimizationProfileAsync(static_cast<int32_t>(profile), lane->stream.get()), "set the profile");
        lane->profile = profile;
    }
    for (size_t i = 0; i < tensors_.size(); ++i)
        if (tensors_[i].is_input)
            give(*lane, i, input_named(inputs, input_count, tensors_[i].name));
    require(context.inferShapes(0, nullptr) == 0, "tell the outputs' shapes");
    output_count = 0;
    for (size_t i = 0; i < tensors_.size(); ++i)
        if (!tensors_[i].is_input)
            outputs[output_count++] = receiver(*lane, i);
    const size_t scratch = context.updateDeviceMemorySizeForShapes();
    context.setDeviceMemoryV2(pointer(lane->scratch.reserve(scratch)), static_cast<int64_t>(scratch));
    require(context.enqueueV3(lane->stream.get()), "run it");
    for (size_t i = 0; i < tensors_.size(); ++i)
        if (!tensors_[i].is_input)
            lane->stream.download(lane->results[i].data(), lane->buffers[i].address(), bytes_of(lane->results[i]));
    lane->stream.wait();
    return lane;
}

void OpenEngine::take_back(std::unique_ptr<Lane> lane) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(std::move(lane));
}

void OpenEngine::require(bool done, const char *what) const {
    if (!done)
        logger_.fail(what);
}

std::unique_ptr<Lane> OpenEngine::free_lane() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!free_.empty()) {
        std::unique_ptr<Lane> lane = std::move(free_.back());
        free_.pop_back();
        return lane;
    }
    free_.reserve(++lanes_); // so that it takes no memory to take one back
    auto lane = std::make_unique<Lane>(gpu_);
    // The scratch memory is ours, since TensorRT's own would be that of the largest size of all profiles.
    lane->context.reset(engine_->createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
    require(lane->context != nullptr, "make a context");
    for (size_t i = 0; i < tensors_.size(); ++i)
        lane->buffers.emplace_back(gpu_);
    lane->results.resize(tensors_.size());
    return lane;
}

void OpenEngine::give(Lane &lane, size_t i, const dlf_tensor &input) const {
    const char *name = tensors_[i].name.c_str();
    nvinfer1::Dims dims = {};
    dims.nbDims = static_cast<int32_t>(input.rank);
    std::copy_n(input.shape, input.rank, dims.d);
    require(lane.context->setInputShape(name, dims), "take an input of this shape");
    const size_t bytes = sizeof(float) * element_count(input);
    const cuda::Address address = lane.buffers[i].reserve(bytes);
    lane.stream.upload(address, input.data, bytes);
    require(lane.context->setTensorAddress(name, pointer(address)), "take an input's address");
}

dlf_tensor OpenEngine::receiver(Lane &lane, size_t i) const {
    const char *name = tensors_[i].name.c_str();
    const nvinfer1::Dims dims = lane.context->getTensorShape(name);
    const bool known = dims.nbDims >= 0 && std::all_of(dims.d, dims.d + dims.nbDims, [](auto side) { return side >= 0; });
    require(known, "tell an output's shape");
    dlf_tensor output = {};
    output.name = name;
    output.rank = static_cast<size_t>(dims.nbDims);
    std::copy_n(dims.d, dims.nbDims, output.shape);
    lane.results[i].resize(element_count(output));
    output.data = lane.results[i].data();
    const cuda::Address address = lane.buffers[i].reserve(bytes_of(lane.results[i]));
    require(lane.context->setTensorAddress(name, pointer(address)), "take an output's address");
    return output;
}

} // namespace dlf
