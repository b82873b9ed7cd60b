#include "codec/memory_needs.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "support/failure.h"
#include "support/formats.h"
#include "support/machine_memory.h"

namespace dlf {
namespace {

constexpr double kTilePixels = double{kTileSide} * kTileSide, kLargeTiles = kLargeBatch / kTilePixels;

double bytes_of(const MemoryNeed &need, double tiles) { return need.bytes + need.bytes_per_pixel * kTilePixels * tiles; }

double tiles_in(const MemoryNeed &need, double bytes) {
    return std::max(0.0, (bytes - need.bytes) / (need.bytes_per_pixel * kTilePixels));
}

std::string in_megabytes(double bytes) {
    char text[32];
    std::snprintf(text, sizeof text, "%.0f MB", std::ceil(bytes / 1e6));
    return text;
}

} // namespace

void check_memory(const MemoryNeeds &needs, const std::string &backend, Direction direction, uint32_t width, uint32_t height,
                  uint32_t images, uint64_t limit) {
    const std::map<std::string, SizedNeed> &measured = direction == Direction::kEncode ? needs.encode : needs.decode;
    const auto found = measured.find(backend);
    if (found == measured.end())
        return;
    const auto &[small, large] = found->second;
    const double available = static_cast<double>(limit == 0 ? usable_memory() : limit);
    const double tiles = static_cast<double>(tiles_along(width)) * static_cast<double>(tiles_along(height)) * images;
    const double bytes = bytes_of(tiles >= kLargeTiles ? large : small, tiles);
    if (bytes <= available)
        return;
    double fitting = tiles_in(large, available);
    if (fitting < kLargeTiles)
        fitting = std::min(tiles_in(small, available), kLargeTiles - 1);
    const auto side = static_cast<size_t>(std::sqrt(fitting)) * kTileSide;
    const std::string count = images == 1 ? "" : std::to_string(images) + " images at a time of ";
    const std::string largest = side == 0 ? "not even one tile of 256x256 fits; raise the limit"
                                          : "up to about " + std::to_string(side) + "x" + std::to_string(side) +
                                                " fit; raise the limit, or cut the image up";
    fail(DLF_ERROR_OUT_OF_MEMORY, count + std::to_string(width) + "x" + std::to_string(height) + " pixels take about " +
                                      in_megabytes(bytes) + " to " + (direction == Direction::kEncode ? "encode" : "decode") +
                                      " on " + backend + ", and the limit is " + in_megabytes(available) + "; " + largest);
}

} // namespace dlf
