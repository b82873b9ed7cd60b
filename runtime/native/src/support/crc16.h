// CRC-16/IBM-3740: polynomial 0x1021, initial value 0xFFFF, no reflection, no final xor.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dlf {

uint16_t crc16(const uint8_t *data, size_t size);

} // namespace dlf
