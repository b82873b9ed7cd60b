// A compiler has checked it against NVIDIA's headers of TensorRT 10.14; it was built and run against a stand-in alone
// (tests/runtime/native/tensorrt), and has not run on a GPU yet.
//
// NVIDIA's classes have virtual functions alone, and a library exports no more than a function that makes the first object; so
// libdlf needs the headers to be built, and links to nothing.
#include "backends/tensorrt_backend.h"

#include <cstdlib>
#include <mutex>
#include <optional>
#include <utility>

#include <NvInferRuntime.h>

#include "backends/backend_guard.h"
#include "backends/cuda_driver.h"
#include "backends/engine_cache.h"
#include "backends/tensorrt_engine.h"
#include "codec/bundle.h"
#include "support/failure.h"
#include "support/formats.h"
#include "support/shared_library.h"

namespace dlf {
namespace {

using nvinfer1::ICudaEngine;
using nvinfer1::IRuntime;

// As runtime/gpu/tensorrt_library.py has it: the module that builds the engines, and whether they are tuned for one model of GPU.
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

// TensorRT's library and the GPU.
class TensorRT {
public:
    explicit TensorRT(const std::string &file);
    ~TensorRT() {
        const CurrentGpu current(gpu_);
        runtime_.reset();
    }
    TensorRT(const TensorRT &) = delete;
    TensorRT &operator=(const TensorRT &) = delete;

    const Gpu &gpu() const { return gpu_; }
    const std::string &version() const { return version_; }
    TensorRTLogger &logger() { return logger_; }
    std::string target() const { return gpu_.architecture() + (kTunes ? " " + gpu_.name() : ""); } // as engine_cache.gpu_name

    std::unique_ptr<ICudaEngine> deserialize(const std::string &plan) {
        return std::unique_ptr<ICudaEngine>(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    }

private:
    Gpu gpu_;
    TensorRTLogger logger_;
    std::string version_;
    std::unique_ptr<IRuntime> runtime_;
};

TensorRT::TensorRT(const std::string &file) {
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
    runtime_.reset(static_cast<IRuntime *>(create(static_cast<nvinfer1::ILogger *>(&logger_), NV_TENSORRT_VERSION)));
    if (runtime_ == nullptr)
        logger_.fail("start its runtime " + version_);
}

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
    //  graph   the digest of the stage
    LoadedStage(TensorRT &tensorrt, const Bundle &bundle, const std::string &name, const std::string &graph)
        : tensorrt_(tensorrt), folder_(bundle.folder()), name_(name), inputs_(bundle.manifest_of(name).inputs) {
        const EngineKey key = {name, graph, bundle.manifest_of(name).precision, kModule, tensorrt.version(), tensorrt.target()};
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
            std::to_string(kTileSide * size.w) + "x" + std::to_string(kTileSide * size.h) + "x" + std::to_string(size.n);
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
            tensorrt_.logger().fail("load " + cached.path.string() + "; delete it, and it is built again");
        return std::make_unique<OpenEngine>(tensorrt_.gpu(), tensorrt_.logger(), std::move(engine));
    }

    // As `build_command` of runtime/gpu/engines.py has it.
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
    std::mutex mutex_;                   // of what follows
    std::vector<std::string> reasons_;
    std::vector<Candidate> candidates_;
};

dlf_result load(void *user, dlf_bundle *bundle, const char *stage, void **loaded, char *message, size_t message_size) {
    const char *graph = nullptr;
    if (const dlf_result refusal = dlf_bundle_stage_digest(bundle, stage, &graph); refusal != DLF_OK)
        return refusal;
    return reported(message, message_size, [&] {
        auto &tensorrt = *static_cast<TensorRT *>(user);
        const CurrentGpu current(tensorrt.gpu());
        *loaded = new LoadedStage(tensorrt, *bundle->bundle, stage, graph);
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

std::shared_ptr<const Backend> open_tensorrt(const char *library) {
    const char *named = std::getenv("DLF_TENSORRT");
    const std::string place = *library == 0 && named != nullptr ? named : library;
    std::shared_ptr<TensorRT> tensorrt;
    try {
        tensorrt = std::make_shared<TensorRT>(place.empty() ? kLibrary : library_file(place, kLibrary));
    } catch (const Failure &failure) {
        if (failure.result == DLF_ERROR_BACKEND_MISSING)
            throw;
        fail(failure.result, "The backend tensorrt does not start (" + failure.message + ").");
    }
    dlf_backend table = {};
    table.struct_size = sizeof table;
    table.name = kTensorRT;
    table.device = tensorrt->gpu().name().c_str();
    table.version = tensorrt->version().c_str();
    table.user = tensorrt.get();
    table.load = load;
    table.run = run;
    table.release = release;
    table.unload = unload;
    table.whole_generator = 1;
    return std::make_shared<const Backend>(table, tensorrt);
}

} // namespace dlf
