// Tokens as one string of bits, `bits` (1 to 16) each, most significant bit first.
#pragma once

#include <cstddef>
#include <cstdint>

#include "support/formats.h"

namespace dlf {

// Bytes of one tile's tokens.
constexpr size_t token_bytes_per_tile(uint32_t bits) { return kTokensPerTile * bits / 8; }

// `packed` receives ceil(count * bits / 8) bytes; the last one's unused bits are 0. Each token is below 2^bits.
void pack_tokens(const uint16_t *tokens, size_t count, uint32_t bits, uint8_t *packed);

void unpack_tokens(const uint8_t *packed, size_t count, uint32_t bits, uint16_t *tokens);

} // namespace dlf
