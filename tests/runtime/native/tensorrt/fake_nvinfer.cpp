// A stand-in for libnvinfer.so.10. An engine is a text that begins with "fake STAGE", or "fake half STAGE" for one whose tensors
// are not float32; it computes what `stages` of test_tensorrt.py does. FAKE_LOG names a file that receives a line for each
// engine that is loaded, and for each profile that is set.
#include <NvInferRuntime.h>

#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "fake_cuda.h"

using namespace nvinfer1;

namespace {

constexpr int64_t kChannels = 8, kDim = 4, kTokens = 32; // of the toy bundle
constexpr size_t kScratch = 1000;

struct Ports {
    std::vector<std::string> inputs, outputs;
};

const std::map<std::string, Ports> kStages = {{"analysis", {{"image"}, {"z", "y"}}},
                                              {"synthesis", {{"z_hat", "y_hat"}, {"semantic", "detail"}}},
                                              {"adaptor", {{"semantic", "detail"}, {"latent"}}},
                                              {"generator", {{"latent"}, {"image"}}}};

void note(const std::string &line) {
    if (const char *file = std::getenv("FAKE_LOG"))
        std::ofstream(file, std::ios::app) << line + "\n";
}

size_t count(const Dims &dims) {
    size_t product = 1;
    for (int32_t i = 0; i < dims.nbDims; ++i)
        product *= static_cast<size_t>(dims.d[i]);
    return product;
}

class Context : public IExecutionContext {
public:
    Context(const std::string &stage, ILogger &logger) : stage_(stage), ports_(kStages.at(stage)), logger_(logger) {}

    bool setOptimizationProfileAsync(int32_t profile, cudaStream_t) noexcept override {
        note("profile " + std::to_string(profile));
        return fake_cuda_is_current() && !has_to_fail("setOptimizationProfileAsync");
    }
    bool setInputShape(char const *name, Dims const &dims) noexcept override {
        shapes_[name] = dims;
        if (has_to_fail("setInputShape"))
            logger_.log(ILogger::Severity::kERROR, "a shape that no profile has");
        return !has_to_fail("setInputShape");
    }
    Dims getTensorShape(char const *name) const noexcept override { return shapes_.at(name); }
    bool setTensorAddress(char const *name, void *data) noexcept override {
        addresses_[name] = static_cast<float *>(data);
        return !has_to_fail("setTensorAddress");
    }
    int32_t inferShapes(int32_t, char const **) noexcept override {
        if (stage_ == "analysis") {
            const Dims image = shapes_["image"];
            shapes_["y"] = {4, {image.d[0], kChannels, image.d[2] / 32, image.d[3] / 32}};
            shapes_["z"] = {5, {image.d[0], image.d[2] / 256, image.d[3] / 256, kDim, kTokens}};
        } else if (stage_ == "synthesis") {
            shapes_["semantic"] = shapes_["z_hat"];
            shapes_["detail"] = shapes_["y_hat"];
        } else if (stage_ == "adaptor") {
            shapes_["latent"] = shapes_["detail"];
        } else {
            const Dims latent = shapes_["latent"];
            shapes_["image"] = {4, {latent.d[0], 3, 32 * latent.d[2], 32 * latent.d[3]}};
        }
        return has_to_fail("inferShapes") ? 1 : 0;
    }
    size_t updateDeviceMemorySizeForShapes() noexcept override { return kScratch; }
    void setDeviceMemoryV2(void *memory, int64_t size) noexcept override {
        has_scratch_ = size == kScratch && fake_cuda_has(memory, kScratch);
    }
    bool enqueueV3(cudaStream_t) noexcept override {
        if (has_to_fail("enqueueV3") || !fake_cuda_is_current() || !has_scratch_)
            return false;
        for (const auto &[name, shape] : shapes_)
            if (!fake_cuda_has(addresses_[name], sizeof(float) * count(shape)))
                return false;
        if (stage_ == "analysis")
            analyse();
        else if (stage_ == "synthesis") {
            copy("z_hat", "semantic");
            copy("y_hat", "detail");
        } else if (stage_ == "adaptor")
            copy("detail", "latent");
        else
            generate();
        return true;
    }

private:
    void copy(const char *from, const char *to) {
        std::memcpy(addresses_[to], addresses_[from], sizeof(float) * count(shapes_[from]));
    }

    // Every 32nd pixel of each row and column is a sample.
    void analyse() {
        const Dims y = shapes_["y"];
        const int64_t height = y.d[2], width = y.d[3];
        std::memset(addresses_["y"], 0, sizeof(float) * count(y));
        for (int64_t channel = 0; channel < 3; ++channel)
            for (int64_t i = 0; i < height; ++i)
                for (int64_t j = 0; j < width; ++j)
                    addresses_["y"][(channel * height + i) * width + j] =
                        32 * addresses_["image"][(channel * 32 * height + 32 * i) * 32 * width + 32 * j];
        for (size_t i = 0; i < count(shapes_["z"]); ++i)
            addresses_["z"][i] = 1;
    }

    void generate() {
        const Dims image = shapes_["image"];
        const int64_t height = image.d[2], width = image.d[3];
        for (int64_t channel = 0; channel < 3; ++channel)
            for (int64_t i = 0; i < height; ++i)
                for (int64_t j = 0; j < width; ++j)
                    addresses_["image"][(channel * height + i) * width + j] =
                        addresses_["latent"][(channel * height / 32 + i / 32) * (width / 32) + j / 32] / 32;
    }

    std::string stage_;
    const Ports &ports_;
    ILogger &logger_;
    std::map<std::string, Dims> shapes_;
    std::map<std::string, float *> addresses_;
    bool has_scratch_ = false;
};

class Engine : public ICudaEngine {
public:
    Engine(const std::string &stage, DataType type, ILogger &logger)
        : stage_(stage), type_(type), ports_(kStages.at(stage)), logger_(logger) {}

    int32_t getNbIOTensors() const noexcept override {
        return static_cast<int32_t>(ports_.inputs.size() + ports_.outputs.size());
    }
    char const *getIOTensorName(int32_t index) const noexcept override {
        const auto at = static_cast<size_t>(index);
        return (at < ports_.inputs.size() ? ports_.inputs[at] : ports_.outputs[at - ports_.inputs.size()]).c_str();
    }
    TensorIOMode getTensorIOMode(char const *name) const noexcept override {
        for (const std::string &input : ports_.inputs)
            if (input == name)
                return TensorIOMode::kINPUT;
        return TensorIOMode::kOUTPUT;
    }
    DataType getTensorDataType(char const *) const noexcept override { return type_; }
    IExecutionContext *createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override {
        if (has_to_fail("createExecutionContext") || strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED)
            return nullptr;
        return new Context(stage_, logger_);
    }

private:
    std::string stage_;
    DataType type_;
    const Ports &ports_;
    ILogger &logger_;
};

class Runtime : public IRuntime {
public:
    explicit Runtime(ILogger &logger) : logger_(logger) {}
    ~Runtime() noexcept override = default;

    ICudaEngine *deserializeCudaEngine(void const *blob, std::size_t size) noexcept override {
        std::istringstream text(std::string(static_cast<const char *>(blob), size));
        std::string magic, stage;
        text >> magic >> stage;
        const bool half = stage == "half";
        if (half)
            text >> stage;
        if (magic != "fake" || kStages.count(stage) == 0) {
            logger_.log(ILogger::Severity::kERROR, "the magic tag is not an engine's");
            return nullptr;
        }
        note("engine " + text.str());
        return new Engine(stage, half ? DataType::kHALF : DataType::kFLOAT, logger_);
    }

private:
    ILogger &logger_;
};

} // namespace

extern "C" {

void *createInferRuntime_INTERNAL(void *logger, int32_t version) noexcept {
    auto &log = *static_cast<ILogger *>(logger);
    if (version == NV_TENSORRT_VERSION && fake_cuda_is_current() && !has_to_fail("createInferRuntime"))
        return new Runtime(log);
    log.log(ILogger::Severity::kERROR, "the versions of header and library differ");
    return nullptr;
}

int32_t getInferLibMajorVersion() noexcept { return NV_TENSORRT_MAJOR; }
int32_t getInferLibMinorVersion() noexcept { return NV_TENSORRT_MINOR; }
int32_t getInferLibPatchVersion() noexcept { return NV_TENSORRT_PATCH; }
int32_t getInferLibBuildVersion() noexcept { return 48; }
}
