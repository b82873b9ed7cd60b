// How many processors this process may use.
#pragma once

#include <cstddef>
#include <string>

namespace dlf {

// At least 1: the processors that the calling thread may run on (taskset), or fewer where a control group's quota of processor
// time, this process's or one around it, is less. `root` is put before the paths of /proc and /sys.
size_t usable_processors(const std::string &root = "");

} // namespace dlf
