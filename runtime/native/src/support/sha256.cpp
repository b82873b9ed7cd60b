#include "support/sha256.h"

#include <algorithm>

namespace dlf {

const uint32_t kSha256Round[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

namespace {

constexpr size_t kBlock = 64;

uint32_t rotate(uint32_t x, int count) { return x >> count | x << (32 - count); }

void blocks(uint32_t *state, const uint8_t *data, size_t count) {
#if defined(__x86_64__)
    static const bool fast = has_sha256_instructions();
    if (fast)
        return sha256_blocks_x86(state, data, count);
#endif
    sha256_blocks_portable(state, data, count);
}

} // namespace

void sha256_blocks_portable(uint32_t *state, const uint8_t *data, size_t count) {
    for (; count > 0; --count, data += kBlock) {
        uint32_t w[64];
        for (size_t i = 0; i < 16; ++i)
            w[i] = uint32_t{data[4 * i]} << 24 | uint32_t{data[4 * i + 1]} << 16 | uint32_t{data[4 * i + 2]} << 8 |
                   uint32_t{data[4 * i + 3]};
        for (size_t i = 16; i < 64; ++i) {
            const uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
            const uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
        for (size_t i = 0; i < 64; ++i) {
            const uint32_t e_sum = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
            const uint32_t t1 = h + e_sum + ((e & f) ^ (~e & g)) + kSha256Round[i] + w[i];
            const uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        const uint32_t working[8] = {a, b, c, d, e, f, g, h};
        for (size_t i = 0; i < 8; ++i)
            state[i] += working[i];
    }
}

void Sha256::update(const void *data, size_t size) {
    const auto *next = static_cast<const uint8_t *>(data);
    const size_t held = size_ % kBlock;
    size_ += size;
    if (held > 0) {
        const size_t taken = std::min(size, kBlock - held);
        std::copy_n(next, taken, &buffer_[held]);
        next += taken;
        size -= taken;
        if (held + taken < kBlock)
            return;
        blocks(state_.data(), buffer_.data(), 1);
    }
    blocks(state_.data(), next, size / kBlock);
    std::copy_n(next + size / kBlock * kBlock, size % kBlock, buffer_.data());
}

Sha256::Digest Sha256::finish() {
    const uint64_t bits = 8 * size_;
    uint8_t end[kBlock + 8] = {0x80};
    const size_t zeros = (2 * kBlock - 9 - size_ % kBlock) % kBlock; // up to 8 bytes before the end of a block
    for (size_t i = 0; i < 8; ++i)
        end[1 + zeros + i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
    update(end, 1 + zeros + 8);
    Digest digest;
    for (size_t i = 0; i < digest.size(); ++i)
        digest[i] = static_cast<uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
    return digest;
}

std::string hexadecimal(const uint8_t *bytes, size_t count) {
    std::string text;
    for (size_t i = 0; i < count; ++i) {
        text += "0123456789abcdef"[bytes[i] >> 4];
        text += "0123456789abcdef"[bytes[i] & 15];
    }
    return text;
}

} // namespace dlf
