// A bundle and the backend that runs its stages, shared between threads.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "backends/backend.h"
#include "codec/bundle.h"

namespace dlf {

class Model {
public:
    Model(const char *folder, const dlf_model_options &options); // throws a Failure

    const Bundle &bundle() const { return *bundle_.bundle; }
    const EntropyModel &entropy() const { return bundle().entropy().model; }
    const Backend &backend() const { return *backend_; }
    bool low_memory() const { return low_memory_; }

    // A stage; loaded now, if it is not yet there. With low_memory the model does not keep it.
    std::shared_ptr<const Stage> stage(const std::string &name);

private:
    dlf_bundle bundle_; // open
    std::shared_ptr<const Backend> backend_;
    bool low_memory_;
    std::mutex mutex_; // of loading, in which backends read the bundle
    std::map<std::string, std::shared_ptr<const Stage>> stages_;
};

} // namespace dlf
