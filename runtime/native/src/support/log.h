// Messages to the application's log function, which is the library's only global state.
#pragma once

#include <chrono>

#include "dlf.h"

namespace dlf {

void set_log(dlf_log_function function, void *user) noexcept;

void log(dlf_log_level level, const char *message) noexcept;

// Logs the time from its construction to its destruction.
class StepTimer {
public:
    explicit StepTimer(const char *step) : step_(step) {}
    ~StepTimer();
    StepTimer(const StepTimer &) = delete;
    StepTimer &operator=(const StepTimer &) = delete;

private:
    using Clock = std::chrono::steady_clock;

    const char *step_;
    Clock::time_point start_ = Clock::now();
};

} // namespace dlf
