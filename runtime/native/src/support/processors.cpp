#include "support/processors.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include <sched.h>

#include "support/control_groups.h"

namespace dlf {
namespace {

namespace fs = std::filesystem;

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

// The processors' worth of time that one group has.
double quota_of(const fs::path &group) {
    double quota = 0, period = 0;
    std::ifstream both(group / "cpu.max"); // version 2: "QUOTA PERIOD", or "max PERIOD", at which reading a number fails
    if (both >> quota >> period && period > 0)
        return quota / period;
    std::ifstream quota_file(group / "cpu.cfs_quota_us"), period_file(group / "cpu.cfs_period_us"); // version 1: -1 for none
    if (quota_file >> quota && period_file >> period && quota > 0 && period > 0)
        return quota / period;
    return kUnlimited;
}

size_t allowed() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return static_cast<size_t>(CPU_COUNT(&set));
    return std::thread::hardware_concurrency(); // more processors than the set has room for
}

} // namespace

size_t usable_processors(const std::string &root) {
    const double count = std::min(static_cast<double>(allowed()), least_of_groups(root, "cpu", quota_of));
    return std::max<size_t>(1, static_cast<size_t>(2 * count + 1) / 2); // the nearest number
}

} // namespace dlf
