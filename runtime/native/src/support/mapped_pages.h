// Keeps the pages of a model's files out of this process's memory while OpenVINO packs them.
//
// OpenVINO maps the weights and packs them into memory of its own, some when it compiles a stage and the others when it first
// runs, but keeps the mapping: half of the resident memory would be weights that are not read again. OpenVINO's own setting
// ENABLE_MMAP does not help: with it off, a model of 216 MB of weights takes as much memory as without this class. The mapping
// is shared and read-only, so that a page that is wanted after all comes back from the file.
#pragma once

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>

namespace dlf {

// Releases the pages of the files whose names begin with that of `file`, such as x.onnx and x.onnx.data: from time to time while
// the object lives, and when it goes. Where the system does not tell what is mapped, nothing happens.
class MappedPagesReleased {
public:
    explicit MappedPagesReleased(const std::filesystem::path &file);
    ~MappedPagesReleased();
    MappedPagesReleased(const MappedPagesReleased &) = delete;
    MappedPagesReleased &operator=(const MappedPagesReleased &) = delete;

private:
    void release() const noexcept;

    std::string prefix_;
    std::mutex mutex_;
    std::condition_variable ended_;
    bool end_ = false;
    std::thread thread_;
};

} // namespace dlf
