#include "support/mapped_pages.h"

#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <system_error>

#include <sys/mman.h>

#include "support/mapped_pages_api.h"

namespace dlf {
namespace {

constexpr std::chrono::milliseconds kPeriod{100}; // some 200 MB are packed meanwhile

} // namespace

MappedPagesReleased::MappedPagesReleased(const std::filesystem::path &file) {
    std::error_code unknown;
    prefix_ = std::filesystem::canonical(file, unknown); // as the system names it
    try {
        thread_ = std::thread([this] {
            std::unique_lock<std::mutex> lock(mutex_);
            while (!ended_.wait_for(lock, kPeriod, [this] { return end_; }))
                release();
        });
    } catch (const std::system_error &) { // no thread: pages are released at the end alone
    }
}

MappedPagesReleased::~MappedPagesReleased() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        end_ = true;
    }
    ended_.notify_one();
    if (thread_.joinable())
        thread_.join();
    release();
}

void MappedPagesReleased::release() const noexcept {
    const std::unique_ptr<FILE, int (*)(FILE *)> maps(std::fopen("/proc/self/maps", "re"), std::fclose);
    if (maps == nullptr || prefix_.empty())
        return;
    char *line = nullptr;
    size_t capacity = 0;
    while (getline(&line, &capacity, maps.get()) > 0) {
        uintptr_t start = 0, end = 0;
        char permissions[5] = "";
        int path = 0;
        // NOLINTBEGIN(bugprone-unchecked-string-to-number-conversion,performance-no-int-to-ptr): the kernel writes the line
        if (std::sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %*s %*s %*s %n", &start, &end, permissions, &path) == 3 &&
            path > 0 && std::strcmp(permissions, "r--s") == 0 && std::strncmp(line + path, prefix_.c_str(), prefix_.size()) == 0)
            madvise(reinterpret_cast<void *>(start), end - start, MADV_DONTNEED);
        // NOLINTEND(bugprone-unchecked-string-to-number-conversion,performance-no-int-to-ptr)
    }
    std::free(line);
}

} // namespace dlf

void *dlf_mapped_pages_begin(const char *file) noexcept {
    try {
        return new dlf::MappedPagesReleased(file);
    } catch (...) { // no memory
        return nullptr;
    }
}

void dlf_mapped_pages_end(void *begun) noexcept { delete static_cast<dlf::MappedPagesReleased *>(begun); }
