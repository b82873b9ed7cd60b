#include "codec/memory_needs.h"

#include <cmath>
#include <cstdio>

#include "support/failure.h"
#include "support/formats.h"
#include "support/machine_memory.h"

namespace dlf {
namespace {

constexpr double kTilePixels = double{kTileSide} * kTileSide, kLargeTiles = kLargeBatch / kTilePixels;

double bytes_of(const MemoryNeed &need, double tiles) { return need.bytes + need.bytes_per_pixel * kTilePixels * tiles; }

constexpr double kMebibyte = 1 << 20;

std::string in_mebibytes(double mebibytes) {
    char text[400]; // any finite number
    std::snprintf(text, sizeof text, "%.0f MiB", mebibytes);
    return text;
}

struct Plan {
    double bytes;
    bool release; // stages are released once they have run
};

// Stages are kept where that fits, or where it is not known what they take when they are released.
Plan plan(const SizedNeed &need, double tiles, double available, bool low_memory) {
    if (tiles >= kLargeTiles)
        return {bytes_of(need.large, tiles), true};
    const double kept = bytes_of(need.small, tiles);
    if (!need.released || (!low_memory && kept <= available))
        return {kept, low_memory};
    return {bytes_of(*need.released, tiles), true};
}

// The largest number below `bound` that fits, as far as more takes more; 0 if none does.
template <typename Fits> uint64_t largest_below(uint64_t bound, const Fits &fits) {
    uint64_t low = 0;
    for (uint64_t high = bound; high - low > 1;) {
        const uint64_t middle = low + (high - low) / 2;
        (fits(static_cast<double>(middle)) ? low : high) = middle;
    }
    return low;
}

// What would fit instead of an image of so many tiles, or of `images` that together have them.
std::string remedy(const SizedNeed &need, double tiles, uint32_t images, double available, bool low_memory) {
    const auto fits = [&](double fewer) { return plan(need, fewer, available, low_memory).bytes <= available; };
    if (images > 1) {
        const uint64_t count = largest_below(images, [&](double fewer) { return fits(tiles / images * fewer); });
        return count == 0 ? "not even one fits; raise the limit"
                          : "up to about " + std::to_string(count) + " fit; raise the limit, or take fewer at a time";
    }
    const auto bound = static_cast<uint64_t>(std::ceil(std::sqrt(tiles)));
    const uint64_t side = largest_below(bound, [&](double fewer) { return fits(fewer * fewer); });
    const std::string pixels = std::to_string(side * kTileSide);
    return side == 0 ? "not even one tile of 256x256 fits; raise the limit"
                     : "up to about " + pixels + "x" + pixels + " fit; raise the limit, or cut the image up";
}

} // namespace

bool check_memory(const MemoryNeeds &needs, const std::string &backend, Direction direction, uint32_t width, uint32_t height,
                  uint32_t images, uint64_t limit, bool low_memory) {
    const std::map<std::string, SizedNeed> &measured = direction == Direction::kEncode ? needs.encode : needs.decode;
    const auto found = measured.find(backend);
    if (found == measured.end())
        return low_memory;
    const SizedNeed &need = found->second;
    const double available = static_cast<double>(limit == 0 ? usable_memory() : limit);
    const double tiles = static_cast<double>(tiles_along(width)) * static_cast<double>(tiles_along(height)) * images;
    const Plan planned = plan(need, tiles, available, low_memory);
    if (planned.bytes <= available)
        return planned.release;
    const std::string count = images == 1 ? "" : std::to_string(images) + " images at a time of ";
    fail(DLF_ERROR_OUT_OF_MEMORY, count + std::to_string(width) + "x" + std::to_string(height) + " pixels take about " +
                                      in_mebibytes(std::ceil(planned.bytes / kMebibyte)) + " to " +
                                      (direction == Direction::kEncode ? "encode" : "decode") + " on " + backend +
                                      ", and the limit is " + in_mebibytes(std::floor(available / kMebibyte)) + "; " +
                                      remedy(need, tiles, images, available, low_memory));
}

} // namespace dlf
