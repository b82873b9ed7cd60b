// A folder of this process's own, which goes with the object.
#pragma once

#include <filesystem>

namespace dlf {

class TemporaryFolder {
public:
    TemporaryFolder(); // throws std::system_error
    ~TemporaryFolder();
    TemporaryFolder(const TemporaryFolder &) = delete;
    TemporaryFolder &operator=(const TemporaryFolder &) = delete;

    const std::filesystem::path &path() const { return path_; }

private:
    std::filesystem::path path_;
};

} // namespace dlf
