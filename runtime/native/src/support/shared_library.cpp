#include "support/shared_library.h"

#include <filesystem>
#include <utility>

#include <dlfcn.h>

#include "support/failure.h"

namespace dlf {

// (PyPI's wheels have only versioned names, such as "libopenvino_c.so.2641".)
std::string library_file(const std::string &place, const std::string &name) {
    std::error_code ignored;
    std::string file = place;
    if (std::filesystem::is_directory(place, ignored)) {
        for (std::filesystem::directory_iterator entry(place, ignored), end; entry != end; entry.increment(ignored)) {
            const std::filesystem::path &path = entry->path();
            if (path.filename().string().rfind(name, 0) == 0 && (file == place || path < file))
                file = path;
        }
    }
    return file;
}

SharedLibrary::SharedLibrary(std::string what, std::string file, std::string remedy)
    : what_(std::move(what)), file_(std::move(file)), remedy_(std::move(remedy)),
      handle_(dlopen(file_.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) {
    if (handle_ == nullptr)
        missing(std::string("cannot be loaded (") + dlerror() + ")");
}

void *SharedLibrary::symbol(const char *name) const {
    void *found = dlsym(handle_, name);
    if (found == nullptr)
        missing("at " + file_ + " has no " + name);
    return found;
}

void SharedLibrary::missing(const std::string &fact) const {
    fail(DLF_ERROR_BACKEND_MISSING, what_ + " " + fact + "; " + remedy_ + ".");
}

} // namespace dlf
