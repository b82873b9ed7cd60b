// A bundle and the backend that runs its stages, shared between threads.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "backends/backend.h"
#include "codec/bundle.h"
#include "codec/generator_levels.h"

namespace dlf {

class Model {
public:
    Model(const char *folder, const dlf_model_options &options); // throws a Failure

    const Bundle &bundle() const { return *bundle_.bundle; }
    const EntropyModel &entropy() const { return bundle().entropy().model; }
    const Backend &backend() const { return *backend_; }

    // Whether a stage is kept after an image of so many tiles.
    bool keeps_after(size_t tiles) const;

    // A stage on the backend; and of the generator, where libdlf computes its levels, the stage below them and the levels.
    struct Loaded {
        std::shared_ptr<const Stage> stage;
        std::shared_ptr<const GeneratorLevels> levels; // NULL: the stage gives all
    };

    // A stage; loaded now, if it is not yet there. The model keeps it, or else releases it and all others: then it may be loaded for
    // one run on such inputs alone.
    Loaded stage(const std::string &name, bool keep, const std::vector<dlf_tensor> &inputs = {});

private:
    dlf_bundle bundle_; // open
    std::shared_ptr<const Backend> backend_;
    bool low_memory_;
    uint32_t threads_;
    std::mutex mutex_; // of loading, in which backends read the bundle
    std::map<std::string, Loaded> stages_;
};

} // namespace dlf
