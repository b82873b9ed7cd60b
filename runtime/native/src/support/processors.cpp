#include "support/processors.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <thread>

#include <sched.h>

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

// The least of a group's quota and those of the groups around it. A path that is not there is one outside of a container, which
// sees its own group as the root.
double least_quota(const fs::path &mount, const fs::path &group) {
    double least = quota_of(mount);
    fs::path inner = mount;
    for (const fs::path &part : group.relative_path())
        least = std::min(least, quota_of(inner /= part));
    return least;
}

double quota(const std::string &root) {
    double least = kUnlimited;
    std::ifstream groups(root + "/proc/self/cgroup"); // lines of ID:CONTROLLERS:PATH; those of version 2 name no controllers
    for (std::string line; std::getline(groups, line);) {
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos)
            continue;
        const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
        const std::string mount = root + "/sys/fs/cgroup";
        if (controllers.empty())
            least = std::min(least, least_quota(mount, path));
        std::istringstream names(controllers);
        for (std::string name; std::getline(names, name, ',');)
            if (name == "cpu")
                least = std::min({least, least_quota(mount + "/cpu", path), least_quota(mount + "/" + controllers, path)});
    }
    return least;
}

size_t allowed() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return static_cast<size_t>(CPU_COUNT(&set));
    return std::thread::hardware_concurrency(); // more processors than the set has room for
}

} // namespace

size_t usable_processors(const std::string &root) {
    const double count = std::min(static_cast<double>(allowed()), quota(root));
    return std::max<size_t>(1, static_cast<size_t>(count + 0.5));
}

} // namespace dlf
