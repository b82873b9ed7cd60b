// The stages of a model, through the function table of dlf.h: the application's, or the built-in one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dlf.h"

namespace dlf {

class Backend;

// A loaded stage.
class Stage {
public:
    // Where inputs are given, for one run on such inputs. Throws a Failure.
    Stage(std::shared_ptr<const Backend> backend, std::string name, dlf_bundle &bundle, const std::vector<dlf_tensor> &inputs);
    ~Stage();
    Stage(const Stage &) = delete;
    Stage &operator=(const Stage &) = delete;

    const std::string &name() const { return name_; }

private:
    friend class StageRun;

    std::shared_ptr<const Backend> backend_;
    std::string name_;
    void *loaded_ = nullptr;
};

// A run of a stage, and what it gave.
class StageRun {
public:
    StageRun(std::shared_ptr<const Stage> stage, const std::vector<dlf_tensor> &inputs); // throws a Failure
    ~StageRun();
    StageRun(const StageRun &) = delete;
    StageRun &operator=(const StageRun &) = delete;

    const std::vector<dlf_tensor> &outputs() const { return outputs_; }
    const Stage &stage() const { return *stage_; }

private:
    std::shared_ptr<const Stage> stage_;
    void *run_ = nullptr;
    std::vector<dlf_tensor> outputs_;
};

// As dlf_backend's `load`, for one run on inputs of these shapes, in which the stage takes less memory.
using LoadForOneRun = dlf_result (*)(void *user, dlf_bundle *bundle, const char *stage, const std::vector<dlf_tensor> &inputs,
                                     void **loaded, char *message, size_t message_size);

// A function table, with what it needs to live, and one function more that a backend of libdlf's own may have.
class Backend {
public:
    explicit Backend(const dlf_backend &table, std::shared_ptr<void> owner = nullptr, LoadForOneRun load_for_one_run = nullptr);

    const std::string &name() const { return name_; }
    const std::string &device() const { return device_; }
    const std::string &version() const { return version_; }
    bool runs_whole_generator() const { return table_.whole_generator != 0; }

private:
    friend class Stage;
    friend class StageRun;

    std::string name_, device_, version_;
    dlf_backend table_;
    LoadForOneRun load_for_one_run_;
    std::shared_ptr<void> owner_; // of table_.user
};

} // namespace dlf
