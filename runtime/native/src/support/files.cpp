#include "support/files.h"

#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace dlf {
namespace {

[[noreturn]] void fail_with(int error) { throw std::system_error(error, std::generic_category()); }

// 0, or the error that says why it is none.
int no_regular_file(const struct stat &status) { return S_ISREG(status.st_mode) ? 0 : S_ISDIR(status.st_mode) ? EISDIR : EINVAL; }

} // namespace

File::File(const std::filesystem::path &path) {
    struct stat status;
    if (const int error = stat(path.c_str(), &status) == 0 ? no_regular_file(status) : errno;
        error != 0) // a device is not opened
        fail_with(error);
    descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); // does not wait, should it have become a pipe
    if (descriptor_ < 0)
        fail_with(errno);
    if (const int error = fstat(descriptor_, &status) == 0 ? no_regular_file(status) : errno; error != 0) {
        close(descriptor_);
        fail_with(error);
    }
    size_ = static_cast<uint64_t>(status.st_size);
}

File::~File() { close(descriptor_); }

bool File::append_to(std::string &content, size_t count) {
    const size_t before = content.size();
    content.resize(before + count);
    ssize_t got;
    do
        got = read(descriptor_, &content[before], count);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        fail_with(errno);
    content.resize(before + static_cast<size_t>(got));
    return got > 0;
}

bool File::read_at(uint64_t offset, void *bytes, size_t count) const {
    for (size_t done = 0; done < count;) {
        const ssize_t got =
            pread(descriptor_, static_cast<char *>(bytes) + done, count - done, static_cast<off_t>(offset + done));
        if (got < 0 && errno != EINTR)
            fail_with(errno);
        if (got == 0)
            return false;
        done += got < 0 ? 0 : static_cast<size_t>(got);
    }
    return true;
}

} // namespace dlf
