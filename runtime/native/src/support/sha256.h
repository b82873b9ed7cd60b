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
    std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<uint8_t, 64> buffer_{}; // the last, incomplete block
    uint64_t size_ = 0;                // bytes seen
};

extern const uint32_t kSha256Round[64];

// Updates the state with `count` blocks of 64 bytes: by the definition, and by x86's SHA instructions.
void sha256_blocks_portable(uint32_t *state, const uint8_t *data, size_t count);
#if defined(__x86_64__)
bool has_sha256_instructions();
void sha256_blocks_x86(uint32_t *state, const uint8_t *data, size_t count);
#endif

std::string hexadecimal(const uint8_t *bytes, size_t count);

} // namespace dlf
