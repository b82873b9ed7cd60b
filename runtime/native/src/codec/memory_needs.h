// What a bundle's stages take of memory, as it was measured at the export: "memory" in section 4 of docs/format.md.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace dlf {

enum class Direction { kEncode, kDecode };

struct MemoryNeed {
    double bytes, bytes_per_pixel; // of the whole process at its peak; pixels as they are padded to tiles
};

struct SizedNeed {
    MemoryNeed small, large;            // large: from kLargeBatch pixels on, where stages are released once they have run
    std::optional<MemoryNeed> released; // of smaller images, where stages are released as well
};

struct MemoryNeeds {
    std::map<std::string, SizedNeed> encode, decode; // by the backend's name
};

// Whether stages must be released once they have run, for `images` of one size to take at most `limit` bytes at a time. Refuses
// images that would take more even so, and says which size would not. Bundles that were not measured on the backend refuse nothing.
//  limit       0: what this process may use
//  low_memory  stages are released in any case
// Throws a Failure.
bool check_memory(const MemoryNeeds &needs, const std::string &backend, Direction direction, uint32_t width, uint32_t height,
                  uint32_t images, uint64_t limit, bool low_memory);

} // namespace dlf
