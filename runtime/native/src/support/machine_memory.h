// How much memory this process may use.
#pragma once

#include <cstdint>
#include <string>

namespace dlf {

// Bytes: what this process holds, and what it could get more: of the machine's memory, and no more than is left below the limits
// of its control group and the groups around it. UINT64_MAX where the system does not say. `root` is put before /proc and /sys.
uint64_t usable_memory(const std::string &root = "");

} // namespace dlf
