#include "support/crc16.h"

#include <array>

namespace dlf {
namespace {

constexpr std::array<uint16_t, 256> make_table() {
    std::array<uint16_t, 256> table{};
    for (unsigned byte = 0; byte < 256; ++byte) {
        unsigned crc = byte << 8;
        for (int bit = 0; bit < 8; ++bit)
            crc = (crc << 1) ^ ((crc & 0x8000) ? 0x1021u : 0u);
        table[byte] = static_cast<uint16_t>(crc);
    }
    return table;
}

constexpr std::array<uint16_t, 256> kTable = make_table();

} // namespace

uint16_t crc16(const uint8_t *data, size_t size) {
    unsigned crc = 0xFFFF;
    for (size_t i = 0; i < size; ++i)
        crc = ((crc << 8) & 0xFFFF) ^ kTable[(crc >> 8) ^ data[i]];
    return static_cast<uint16_t>(crc);
}

} // namespace dlf
