// What a bundle's stages take of memory, as it was measured at the export: "memory" in section 4 of docs/format.md.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace dlf {

enum class Direction { kEncode, kDecode };

struct MemoryNeed {
    double bytes, bytes_per_pixel; // of the whole process at its peak; pixels as they are padded to tiles
};

struct SizedNeed {
    MemoryNeed small, large; // large: from kLargeBatch pixels on
};

struct MemoryNeeds {
    std::map<std::string, SizedNeed> encode, decode; // by the backend's name
};

// Refuses `images` of one size that would take more than `limit` bytes at a time, and says which size would not. Bundles that were
// not measured on the backend refuse nothing.
//  limit   0: what this process may use
// Throws a Failure.
void check_memory(const MemoryNeeds &needs, const std::string &backend, Direction direction, uint32_t width, uint32_t height,
                  uint32_t images, uint64_t limit);

} // namespace dlf
