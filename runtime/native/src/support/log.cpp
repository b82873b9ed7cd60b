#include "support/log.h"

#include <cstdio>
#include <mutex>
#include <shared_mutex>

namespace dlf {
namespace {

std::shared_mutex mutex; // shared while the function is called, by several threads at a time; exclusive while it is set
dlf_log_function function_ = nullptr;
void *user_ = nullptr;

} // namespace

void set_log(dlf_log_function function, void *user) noexcept {
    const std::unique_lock<std::shared_mutex> lock(mutex);
    function_ = function;
    user_ = user;
}

void log(dlf_log_level level, const char *message) noexcept {
    const std::shared_lock<std::shared_mutex> lock(mutex);
    if (function_ != nullptr)
        function_(user_, level, message);
}

StepTimer::~StepTimer() {
    const std::chrono::duration<double> seconds = Clock::now() - start_;
    char line[64];
    std::snprintf(line, sizeof line, "%s: %.3f s", step_, seconds.count());
    log(DLF_LOG_DEBUG, line);
}

} // namespace dlf
