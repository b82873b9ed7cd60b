// Compiled against NVIDIA's headers of TensorRT 10.14, run against a stand-in alone (tests/runtime/native/tensorrt): it has not
// run on a GPU yet.
//
// NVIDIA's classes have virtual functions alone, and a library exports no more than a function that makes the first object; so
// libdlf needs the headers to be built, and links to nothing.
#include "tensorrt_backend.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <numeric>
#include <utility>

#include <NvInferRuntime.h>

#include "cuda_driver.h"
#include "engine_cache.h"
#include "failure.h"
#include "log.h"
#include "reported.h"
#include "shared_library.h"

namespace dlf {
namespace {

using nvinfer1::ExecutionContextAllocationStrategy;
using nvinfer1::ICudaEngine;
using nvinfer1::IExecutionContext;
using nvinfer1::ILogger;
using nvinfer1::IRuntime;

// As runtime/trt.py has it: the module that builds the engines, and whether they are tuned for one model of GPU.
#ifdef TRT_MAJOR_RTX
constexpr const char *kLibrary = "libtensorrt_rtx.so." DLF_TEXT(TRT_MAJOR_RTX);
constexpr const char *kModule = "tensorrt_rtx";
constexpr bool kTunes = false;
#else
constexpr const char *kLibrary = "libnvinfer.so." DLF_TEXT(NV_TENSORRT_MAJOR);
constexpr const char *kModule = "tensorrt";
constexpr bool kTunes = true;
#endif

// Of every engine that dlf builds, the smallest size that it takes: the one to load a stage with, when no size is known.
constexpr BatchSize kSmallest = {1, 1, 1};

// Keeps TensorRT's last error, which its functions do not return.
class Logger : public ILogger {
public:
    void log(Severity severity, const char *text) noexcept override {
        if (severity > Severity::kWARNING)
            return;
        try {
            dlf::log(DLF_LOG_DEBUG, (std::string(kModule) + ": " + text).c_str());
            const std::lock_guard<std::mutex> lock(mutex_);
            if (severity <= Severity::kERROR)
                last_error_ = text;
        } catch (...) { // no memory to keep it
        }
    }

    [[noreturn]] void fail(const std::string &what) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const std::string reason = std::exchange(last_error_, {});
        dlf::fail(DLF_ERROR_BACKEND_FAILED, "TensorRT could not " + what + (reason.empty() ? "" : ": " + reason));
    }

private:
    std::mutex mutex_;
    std::string last_error_;
};

// TensorRT's library, the GPU, and the bundle whose engines are looked for.
class TensorRT {
public:
    TensorRT(const std::string &file, Bundle &bundle);
    ~TensorRT() {
        const CurrentGpu current(gpu_);
        runtime_.reset();
    }
    TensorRT(const TensorRT &) = delete;
    TensorRT &operator=(const TensorRT &) = delete;

    const Gpu &gpu() const { return gpu_; }
    const std::string &version() const { return version_; }
    Bundle &bundle() { return bundle_; }
    Logger &logger() { return logger_; }
    std::string target() const { return gpu_.architecture() + (kTunes ? " " + gpu_.name() : ""); } // as engine_cache.gpu_name

    std::unique_ptr<ICudaEngine> deserialize(const std::string &plan) {
        return std::unique_ptr<ICudaEngine>(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    }

private:
    Bundle &bundle_;
    Gpu gpu_;
    Logger logger_;
    std::string version_;
    std::unique_ptr<IRuntime> runtime_;
};

TensorRT::TensorRT(const std::string &file, Bundle &bundle) : bundle_(bundle) {
    const SharedLibrary library("TensorRT's library", file,
                                std::string("install it (pip install ") + kModule + "), and name the folder of " + kLibrary +
                                    " in DLF_TENSORRT");
    for (const char *part : {"Major", "Minor", "Patch", "Build"}) {
        int32_t (*number)() = nullptr;
        library.look_up(number, ("getInferLib" + std::string(part) + "Version").c_str());
        version_ += (version_.empty() ? "" : ".") + std::to_string(number());
    }
    void *(*create)(void *, int32_t) = nullptr;
    library.look_up(create, "createInferRuntime_INTERNAL");
    const CurrentGpu current(gpu_);
    runtime_.reset(static_cast<IRuntime *>(create(static_cast<ILogger *>(&logger_), NV_TENSORRT_VERSION)));
    if (runtime_ == nullptr)
        logger_.fail("start its runtime " + version_);
}

size_t element_count(const dlf_tensor &tensor) {
    return std::accumulate(tensor.shape, tensor.shape + tensor.rank, size_t{1}, std::multiplies<>());
}

// An engine set up for runs of one image after the other: a context, and the memory of its tensors.
struct Lane {
    explicit Lane(const Gpu &its_gpu) : gpu(its_gpu), stream(gpu), scratch(gpu) {}
    ~Lane() { gpu.cuStreamSynchronize(stream.get()); } // where a run failed, work may be under way
    Lane(const Lane &) = delete;
    Lane &operator=(const Lane &) = delete;

    const Gpu &gpu;

    Stream stream;
    DeviceBuffer scratch;
    std::vector<DeviceBuffer> buffers; // of each tensor, by its number in the engine
    std::vector<std::vector<float>> results; // likewise; of outputs alone
    std::optional<size_t> profile;
    std::unique_ptr<IExecutionContext> context; // the last, so that it goes first
};

// An engine that has been loaded.
class OpenEngine {
public:
    OpenEngine(TensorRT &tensorrt, std::unique_ptr<ICudaEngine> engine) : tensorrt_(tensorrt), engine_(std::move(engine)) {
        for (int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
            const char *name = engine_->getIOTensorName(i);
            const bool is_input = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
            if (engine_->getTensorDataType(name) != nvinfer1::DataType::kFLOAT)
                fail(DLF_ERROR_BACKEND_FAILED,
                     std::string("its engine has '") + name + "' not in float32; export the bundle again");
            tensors_.push_back({name, is_input});
        }
        const auto is_output = [](const Tensor &tensor) { return !tensor.is_input; };
        if (std::count_if(tensors_.begin(), tensors_.end(), is_output) > DLF_MAX_OUTPUTS)
            fail(DLF_ERROR_BACKEND_FAILED, "its engine has more than " DLF_TEXT(DLF_MAX_OUTPUTS) " outputs");
    }

    // Runs it; the lane holds the outputs until it is taken back.
    std::unique_ptr<Lane> run(size_t profile, const dlf_tensor *inputs, size_t input_count, dlf_tensor *outputs,
                              size_t &output_count) {
        std::unique_ptr<Lane> lane = free_lane();
        IExecutionContext &context = *lane->context;
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

    void take_back(std::unique_ptr<Lane> lane) noexcept {
        const std::lock_guard<std::mutex> lock(mutex_);
        free_.push_back(std::move(lane));
    }

private:
    struct Tensor {
        std::string name;
        bool is_input;
    };

    static size_t bytes_of(const std::vector<float> &values) { return values.size() * sizeof(float); }
    static void *pointer(cuda::Address address) { return reinterpret_cast<void *>(address); }

    void require(bool done, const char *what) const {
        if (!done)
            tensorrt_.logger().fail(what);
    }

    std::unique_ptr<Lane> free_lane() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!free_.empty()) {
            std::unique_ptr<Lane> lane = std::move(free_.back());
            free_.pop_back();
            return lane;
        }
        free_.reserve(++lanes_); // so that it takes no memory to take one back
        auto lane = std::make_unique<Lane>(tensorrt_.gpu());
        // The scratch memory is ours, since TensorRT's own would be that of the largest size of all profiles.
        lane->context.reset(engine_->createExecutionContext(ExecutionContextAllocationStrategy::kUSER_MANAGED));
        require(lane->context != nullptr, "make a context");
        for (size_t i = 0; i < tensors_.size(); ++i)
            lane->buffers.emplace_back(tensorrt_.gpu());
        lane->results.resize(tensors_.size());
        return lane;
    }

    void give(Lane &lane, size_t i, const dlf_tensor &input) const {
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

    // Where an output will be, on the GPU and then here.
    dlf_tensor receiver(Lane &lane, size_t i) const {
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

    TensorRT &tensorrt_;
    std::unique_ptr<ICudaEngine> engine_;
    std::vector<Tensor> tensors_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Lane>> free_; // as many as ran at the same time
    size_t lanes_ = 0;
};

struct Run {
    OpenEngine &engine;
    std::unique_ptr<Lane> lane;
};

std::string quoted(std::string text) {
    for (size_t at = 0; (at = text.find('\'', at)) != std::string::npos; at += 4)
        text.replace(at, 1, "'\\''");
    return "'" + text + "'";
}

class LoadedStage {
public:
    LoadedStage(TensorRT &tensorrt, const std::string &name)
        : tensorrt_(tensorrt), folder_(tensorrt.bundle().folder()), name_(name) {
        const Manifest::Stage &stage = tensorrt.bundle().manifest_of(name);
        inputs_ = stage.inputs;
        const EngineKey key = {name,    tensorrt.bundle().stage_digest(name), stage.precision,
                               kModule, tensorrt.version(),                   tensorrt.target()};
        for (Engine &engine : engines_of(key, engine_folder(), reasons_))
            candidates_.push_back({std::move(engine), nullptr});
        engine_for(kSmallest, "");
    }

    ~LoadedStage() {
        const CurrentGpu current(tensorrt_.gpu());
        candidates_.clear();
    }
    LoadedStage(const LoadedStage &) = delete;
    LoadedStage &operator=(const LoadedStage &) = delete;

    const Gpu &gpu() const { return tensorrt_.gpu(); }

    // Throws a Failure, of BACKEND_FAILED where no engine takes this size.
    std::unique_ptr<Run> run(const dlf_tensor *inputs, size_t input_count, dlf_tensor *outputs, size_t &output_count) {
        const BatchSize size = batch_size(inputs_, inputs, input_count);
        const std::string pixels =
            std::to_string(256 * size.w) + "x" + std::to_string(256 * size.h) + "x" + std::to_string(size.n);
        const auto [engine, profile] = engine_for(size, pixels);
        return std::make_unique<Run>(Run{*engine, engine->run(profile, inputs, input_count, outputs, output_count)});
    }

private:
    struct Candidate {
        Engine cached;
        std::unique_ptr<OpenEngine> open; // once it is needed
    };

    // The engine that serves a size best, of those whose bytes are what their sidecars say, and its profile.
    //  pixels   the size as the command that builds engines spells it; "" for the sizes of every engine
    std::pair<OpenEngine *, size_t> engine_for(const BatchSize &size, const std::string &pixels) {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (;;) {
            auto best = candidates_.end();
            size_t profile = 0;
            for (auto candidate = candidates_.begin(); candidate != candidates_.end(); ++candidate) {
                const std::vector<Profile> &profiles = candidate->cached.profiles;
                const std::optional<size_t> chosen = choose_profile(profiles, size);
                if (chosen && (best == candidates_.end() || is_tighter(profiles[*chosen], best->cached.profiles[profile]))) {
                    best = candidate;
                    profile = *chosen;
                }
            }
            if (best == candidates_.end())
                no_engine(pixels);
            try {
                if (best->open == nullptr)
                    best->open = open(best->cached);
                return {best->open.get(), profile};
            } catch (const UnusableEngine &unusable) {
                reasons_.push_back(best->cached.path.filename().string() + " is not used: it " + unusable.reason + ".");
                candidates_.erase(best);
            }
        }
    }

    std::unique_ptr<OpenEngine> open(const Engine &cached) const {
        auto engine = tensorrt_.deserialize(read_plan(cached));
        if (engine == nullptr)
            tensorrt_.logger().fail("load " + cached.path.string() + "; delete it to have it built anew");
        return std::make_unique<OpenEngine>(tensorrt_, std::move(engine));
    }

    // As `build_command` of engine_cache.py has it.
    [[noreturn]] void no_engine(const std::string &pixels) const {
        std::string message = "there is no engine for " + (pixels.empty() ? "it" : pixels + " pixels") + "; run: python -m " +
                              "dlf.export.engine " + quoted(folder_) + " --gpu " + quoted(tensorrt_.target()) +
                              (pixels.empty() ? "" : " --size " + pixels) + " --stage " + name_;
        for (const std::string &reason : reasons_)
            message += "\n" + reason;
        fail(DLF_ERROR_BACKEND_FAILED, message);
    }

    TensorRT &tensorrt_;
    std::string folder_, name_;
    std::vector<Manifest::Port> inputs_; // as the manifest has them
    std::mutex mutex_; // of what follows
    std::vector<std::string> reasons_;
    std::vector<Candidate> candidates_;
};

dlf_result load(void *user, const char *stage, const char *, void **loaded, char *message, size_t message_size) {
    return reported(message, message_size, [&] {
        auto &tensorrt = *static_cast<TensorRT *>(user);
        const CurrentGpu current(tensorrt.gpu());
        *loaded = new LoadedStage(tensorrt, stage);
    });
}

dlf_result run(void *, void *loaded, const dlf_tensor *inputs, size_t input_count, dlf_tensor *outputs, size_t *output_count,
               void **run, char *message, size_t message_size) {
    return reported(message, message_size, [&] {
        auto &stage = *static_cast<LoadedStage *>(loaded);
        const CurrentGpu current(stage.gpu());
        *run = stage.run(inputs, input_count, outputs, *output_count).release();
    });
}

void release(void *, void *, void *run) {
    const std::unique_ptr<Run> taken(static_cast<Run *>(run));
    taken->engine.take_back(std::move(taken->lane));
}

void unload(void *, void *loaded) { delete static_cast<LoadedStage *>(loaded); }

} // namespace

std::shared_ptr<const Backend> open_tensorrt(const char *library, Bundle &bundle) {
    const char *named = std::getenv("DLF_TENSORRT");
    const std::string place = *library == 0 && named != nullptr ? named : library;
    std::shared_ptr<TensorRT> tensorrt;
    try {
        tensorrt = std::make_shared<TensorRT>(place.empty() ? kLibrary : library_file(place, kLibrary), bundle);
    } catch (const Failure &failure) {
        if (failure.result == DLF_ERROR_BACKEND_MISSING)
            throw;
        fail(failure.result, "The backend tensorrt does not start (" + failure.message + ").");
    }
    dlf_backend table = {};
    table.struct_size = sizeof table;
    table.name = "tensorrt";
    table.device = tensorrt->gpu().name().c_str();
    table.version = tensorrt->version().c_str();
    table.user = tensorrt.get();
    table.load = load;
    table.run = run;
    table.release = release;
    table.unload = unload;
    return std::make_shared<const Backend>(table, tensorrt);
}

} // namespace dlf
