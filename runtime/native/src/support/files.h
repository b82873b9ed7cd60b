// Reading regular files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace dlf {

class File {
public:
    // All functions throw std::system_error. Links are followed; what is no regular file, such as a folder, a pipe or a device,
    // is refused at once.
    explicit File(const std::filesystem::path &path);
    ~File();
    File(const File &) = delete;
    File &operator=(const File &) = delete;

    uint64_t size() const { return size_; }

    // Appends at most `count` bytes to `content`; false at the end of the file.
    bool append_to(std::string &content, size_t count);

    // Reads `count` bytes from `offset` on; false if the file ends before.
    bool read_at(uint64_t offset, void *bytes, size_t count) const;

private:
    int descriptor_;
    uint64_t size_;
};

} // namespace dlf
