#include "backends/backend.h"

#include <algorithm>
#include <utility>

#include "support/failure.h"

namespace dlf {
namespace {

// What a backend's function writes its reason into.
struct Message {
    char text[2048] = "";

    // Turns a function's refusal into a Failure.
    void check(dlf_result result, const Backend &backend, const char *action, const Stage &stage) {
        if (result == DLF_OK)
            return;
        text[sizeof text - 1] = 0;
        const bool passed_on = result == DLF_ERROR_OUT_OF_MEMORY || result == DLF_ERROR_BUNDLE_BROKEN;
        fail(passed_on ? result : DLF_ERROR_BACKEND_FAILED, backend.name() + " could not " + action + " stage " + stage.name() +
                                                                " (" + (*text != 0 ? text : dlf_result_string(result)) + ").");
    }
};

} // namespace

Backend::Backend(const dlf_backend &table, std::shared_ptr<void> owner, LoadForOneRun load_for_one_run)
    : name_(table.name), device_(table.device == nullptr ? "" : table.device),
      version_(table.version == nullptr ? "" : table.version), table_(table), load_for_one_run_(load_for_one_run),
      owner_(std::move(owner)) {}

Stage::Stage(std::shared_ptr<const Backend> backend, std::string name, dlf_bundle &bundle, const std::vector<dlf_tensor> &inputs)
    : backend_(std::move(backend)), name_(std::move(name)) {
    const dlf_backend &table = backend_->table_;
    Message message;
    const LoadForOneRun for_one_run = inputs.empty() ? nullptr : backend_->load_for_one_run_;
    const dlf_result result =
        for_one_run == nullptr
            ? table.load(table.user, &bundle, name_.c_str(), &loaded_, message.text, sizeof message.text)
            : for_one_run(table.user, &bundle, name_.c_str(), inputs, &loaded_, message.text, sizeof message.text);
    const char *of_bundle = dlf_bundle_message(&bundle);
    if (result == DLF_ERROR_BUNDLE_BROKEN && *message.text == 0 && *of_bundle != 0)
        fail(result, of_bundle);
    message.check(result, *backend_, "load", *this);
}

Stage::~Stage() { backend_->table_.unload(backend_->table_.user, loaded_); }

StageRun::StageRun(std::shared_ptr<const Stage> stage, const std::vector<dlf_tensor> &inputs)
    : stage_(std::move(stage)), outputs_(DLF_MAX_OUTPUTS) {
    const Backend &backend = *stage_->backend_;
    const dlf_backend &table = backend.table_;
    size_t count = 0;
    Message message;
    const dlf_result result = table.run(table.user, stage_->loaded_, inputs.data(), inputs.size(), outputs_.data(), &count, &run_,
                                        message.text, sizeof message.text);
    message.check(result, backend, "run", *stage_);
    outputs_.resize(std::min<size_t>(count, DLF_MAX_OUTPUTS));
}

StageRun::~StageRun() {
    const dlf_backend &table = stage_->backend_->table_;
    table.release(table.user, stage_->loaded_, run_);
}

} // namespace dlf
