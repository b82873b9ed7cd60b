#include "support/machine_memory.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "support/control_groups.h"

namespace dlf {
namespace {

namespace fs = std::filesystem;

constexpr double kUnlimited = std::numeric_limits<double>::infinity();
constexpr double kPageless = 9e18; // version 1 writes "no limit" as the largest number of whole pages

// The number after a name in a file of lines "NAME NUMBER", or `otherwise`.
double number_after(const fs::path &path, const std::string &name, double otherwise) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::string first;
        double number = 0;
        if (words >> first >> number && first == name)
            return number;
    }
    return otherwise;
}

// KiB in /proc, as bytes.
double kibibytes_after(const fs::path &path, const std::string &name, double otherwise) {
    return number_after(path, name, otherwise / 1024) * 1024;
}

// What is left in a group: its limit without what is in use, of which pages of files that nobody reads can be dropped.
double left_in(const fs::path &group) {
    double limit = 0, used = 0;
    std::ifstream limit_file(group / "memory.max"), used_file(group / "memory.current"); // version 2; "max" is not a number
    if (limit_file >> limit && used_file >> used)
        return limit - used + number_after(group / "memory.stat", "inactive_file", 0);
    std::ifstream first_limit(group / "memory.limit_in_bytes"), first_used(group / "memory.usage_in_bytes");
    if (first_limit >> limit && first_used >> used && limit < kPageless)
        return limit - used + number_after(group / "memory.stat", "total_inactive_file", 0);
    return kUnlimited;
}

} // namespace

uint64_t usable_memory(const std::string &root) {
    const double left =
        std::min(kibibytes_after(root + "/proc/meminfo", "MemAvailable:", kUnlimited), least_of_groups(root, "memory", left_in));
    const double usable = std::max(left, 0.0) + kibibytes_after(root + "/proc/self/status", "VmRSS:", 0);
    return usable < kPageless ? static_cast<uint64_t>(usable) : UINT64_MAX;
}

} // namespace dlf
