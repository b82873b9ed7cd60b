// The control groups (version 1 and 2) that this process is in.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace dlf {

// The least of what `limit_of` says of this process's group and of the groups around it, in the hierarchy of a controller such as
// "cpu"; it is given each group's folder, and says infinity where there is no limit. `root` is put before /proc and /sys.
double least_of_groups(const std::string &root, const std::string &controller,
                       const std::function<double(const std::filesystem::path &)> &limit_of);

} // namespace dlf
