// A plain byte-wise rANS coder, the peer of benchmarks/entropy.py: a linear search for the symbol, a division for each
// symbol, a byte vector that grows, as coders that come with learned codecs' research code do it. Written for the benchmark;
// its streams are those of section 2 of docs/format.md, escapes left out: values are clamped to -bound..bound.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace {
constexpr uint32_t kLow = 1u << 23;
std::vector<uint8_t> emitted; // of the one stream that is being written
} // namespace

extern "C" {

// starts: [cdfs][width], each CDF's first slots and then 65536; bounds: [cdfs]. Returns the stream's bytes.
size_t peer_encode(const int32_t *starts, const int32_t *bounds, size_t width, const int32_t *symbols, const int16_t *indexes,
                   size_t count, uint8_t *out) {
    emitted.clear();
    uint32_t x = kLow;
    for (size_t i = count; i-- > 0;) {
        if (indexes[i] < 0)
            continue;
        const int32_t *cdf = starts + static_cast<size_t>(indexes[i]) * width;
        const int32_t bound = bounds[indexes[i]];
        const int32_t s = std::clamp(symbols[i], -bound, bound) + bound;
        const auto start = static_cast<uint32_t>(cdf[s]), frequency = static_cast<uint32_t>(cdf[s + 1]) - start;
        for (; x >= frequency << 15; x >>= 8)
            emitted.push_back(static_cast<uint8_t>(x));
        x = ((x / frequency) << 16) + x % frequency + start;
    }
    for (int shift = 24; shift >= 0; shift -= 8)
        emitted.push_back(static_cast<uint8_t>(x >> shift));
    std::reverse_copy(emitted.begin(), emitted.end(), out);
    return emitted.size();
}

// Decodes from `state` and `next`, which are moved on; state 0 begins a stream.
void peer_decode(const int32_t *starts, const int32_t *bounds, size_t width, const int16_t *indexes, size_t count,
                 int32_t *symbols, uint32_t *state, const uint8_t **next) {
    uint32_t x = *state;
    const uint8_t *at = *next;
    if (x == 0)
        for (uint32_t shift = 0; shift < 32; shift += 8)
            x |= uint32_t{*at++} << shift;
    for (size_t i = 0; i < count; ++i) {
        if (indexes[i] < 0) {
            symbols[i] = 0;
            continue;
        }
        const int32_t *cdf = starts + static_cast<size_t>(indexes[i]) * width;
        const uint32_t slot = x & 0xFFFF;
        int32_t s = 0;
        while (static_cast<uint32_t>(cdf[s + 1]) <= slot)
            ++s;
        const auto start = static_cast<uint32_t>(cdf[s]), frequency = static_cast<uint32_t>(cdf[s + 1]) - start;
        x = frequency * (x >> 16) + slot - start;
        while (x < kLow)
            x = (x << 8) | *at++;
        symbols[i] = s - bounds[indexes[i]];
    }
    *state = x;
    *next = at;
}

} // extern "C"
