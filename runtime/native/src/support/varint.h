// The varint of the .dlf format: seven bits a byte, least significant first, at most three bytes; a number has one spelling.
#pragma once

#include <cstdint>
#include <memory_resource>
#include <vector>

#include "support/byte_reader.h"

namespace dlf {

constexpr int kVarintBytes = 3;
constexpr uint32_t kVarintEnd = 1u << (7 * kVarintBytes); // one above the largest number

inline uint32_t read_varint(ByteReader &reader, dlf_result malformed) {
    uint32_t value = 0;
    for (int i = 0; i < kVarintBytes; ++i) {
        const uint8_t byte = reader.byte();
        value |= uint32_t{byte & 0x7Fu} << (7 * i);
        if (!(byte & 0x80)) {
            require(i == 0 || byte != 0, malformed); // a longer spelling of the same number
            return value;
        }
    }
    throw Failure{malformed};
}

inline void write_varint(std::pmr::vector<uint8_t> &out, uint32_t value) {
    for (; value >= 0x80; value >>= 7)
        out.push_back(static_cast<uint8_t>(value | 0x80));
    out.push_back(static_cast<uint8_t>(value));
}

} // namespace dlf
