#include "codec/model.h"

#include <algorithm>

#include "backends/openvino_backend.h"
#include "backends/order.h"
#include "backends/tensorrt_backend.h"
#include "codec/bundle_folder.h"
#include "codec/container.h"
#include "support/formats.h"
#include "support/log.h"

namespace dlf {
namespace {

const char *backend_name(const dlf_model_options &options) {
    if (options.backend != nullptr)
        return options.backend->name;
    return options.tensorrt != nullptr ? kTensorRT : kOpenVINO;
}

std::optional<std::string> fingerprint_of(const dlf_file_info *file) {
    if (file == nullptr)
        return {};
    return fingerprint_text(file->fingerprint);
}

// A stage with its place among those of the encoder or of the decoder, as runtime/progress.py has it: "generator (3 of 3)".
std::string numbered(const std::string &stage) {
    if (stage == kEncoderStage)
        return stage + " (1 of 1)";
    const auto *first = kDecoderStages.data();
    const auto at = std::find(first, first + kDecoderStages.size(), stage) - first;
    return stage + " (" + std::to_string(at + 1) + " of " + std::to_string(kDecoderStages.size()) + ")";
}

std::shared_ptr<const Backend> open_backend(const dlf_model_options &options) {
    if (options.backend != nullptr)
        return std::make_shared<const Backend>(*options.backend);
    if (options.tensorrt != nullptr)
        return open_tensorrt(options.tensorrt);
    return open_openvino(options.openvino, options.threads);
}

} // namespace

Model::Model(const char *folder, const dlf_model_options &options)
    : bundle_{open_best(folder, precisions_of(backend_name(options)), fingerprint_of(options.file))},
      backend_(open_backend(options)), low_memory_(options.low_memory != 0), threads_(options.threads) {
    const std::string license = bundle().license().empty() ? "unknown" : bundle().license();
    log(DLF_LOG_INFO,
        ("Model " + bundle().name() + " (" + bundle().fingerprint_text() + ", licence: " + license + ") on " + backend_->name() +
         " (" + backend_->device() + ", " + bundle().precision() + ", " + backend_->version() + ").")
            .c_str());
}

bool Model::keeps_after(size_t tiles) const {
    const bool is_large = tiles * kTileSide * kTileSide >= kLargeBatch && !backend_->runs_whole_generator();
    return !low_memory_ && !is_large;
}

Model::Loaded Model::stage(const std::string &name, bool keep, const std::vector<dlf_tensor> &inputs) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto loaded = stages_.find(name);
    Loaded kept = loaded == stages_.end() ? Loaded() : loaded->second;
    if (!keep)
        stages_.clear();
    if (kept.stage != nullptr)
        return kept;
    log(DLF_LOG_DEBUG, ("loading " + numbered(name)).c_str());
    const StepTimer timer("load");
    Loaded stage;
    if (name == kDecoderStages.back() && !backend_->runs_whole_generator())
        stage.levels = GeneratorLevels::open(*bundle_.bundle, threads_);
    stage.stage = std::make_shared<const Stage>(backend_, stage.levels == nullptr ? name : stage.levels->stage(), bundle_,
                                                keep ? std::vector<dlf_tensor>() : inputs);
    if (keep)
        stages_[name] = stage;
    return stage;
}

} // namespace dlf
