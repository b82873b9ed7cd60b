#include "support/control_groups.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>

namespace dlf {
namespace {

namespace fs = std::filesystem;
using LimitOf = std::function<double(const fs::path &)>;

// The least of a group and those around it. A path that is not there is one outside of a container, which sees its own group as
// the root.
double least_of(const fs::path &mount, const fs::path &group, const LimitOf &limit_of) {
    double least = limit_of(mount);
    fs::path inner = mount;
    for (const fs::path &part : group.relative_path())
        least = std::min(least, limit_of(inner /= part));
    return least;
}

} // namespace

double least_of_groups(const std::string &root, const std::string &controller, const LimitOf &limit_of) {
    double least = std::numeric_limits<double>::infinity();
    std::ifstream groups(root + "/proc/self/cgroup"); // lines of ID:CONTROLLERS:PATH; those of version 2 name no controllers
    for (std::string line; std::getline(groups, line);) {
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos)
            continue;
        const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
        const std::string mount = root + "/sys/fs/cgroup/";
        if (controllers.empty())
            least = std::min(least, least_of(mount, path, limit_of));
        std::istringstream names(controllers);
        for (std::string name; std::getline(names, name, ',');)
            if (name == controller)
                for (const std::string &folder : {name, controllers})
                    least = std::min(least, least_of(mount + folder, path, limit_of));
    }
    return least;
}

} // namespace dlf
