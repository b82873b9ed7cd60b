// SHA-256, as FIPS 180-4 defines it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace dlf {

class Sha256 {
public:
    using Digest = std::array<uint8_t, 32>;

    void update(const void *data, size_t size);
    Digest finish(); // once, at the end

private:
    void blocks(const uint8_t *data, size_t count);

    std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<uint8_t, 64> buffer_{}; // the last, incomplete block
    uint64_t size_ = 0;                // bytes seen
};

std::string hexadecimal(const uint8_t *bytes, size_t count);

} // namespace dlf
