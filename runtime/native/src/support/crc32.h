// CRC-32/ISO-HDLC, that of zlib and PNG: polynomial 0x04C11DB7 reflected, initial value and final xor 0xFFFFFFFF.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dlf {

uint32_t crc32(const uint8_t *data, size_t size);

} // namespace dlf
