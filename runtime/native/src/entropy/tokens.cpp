#include "entropy/tokens.h"

namespace dlf {

void pack_tokens(const uint16_t *tokens, size_t count, uint32_t bits, uint8_t *packed) {
    uint32_t pending = 0; // its low `held` bits are not written yet; those above them are
    uint32_t held = 0;
    for (size_t i = 0; i < count; ++i) {
        pending = (pending << bits) | tokens[i];
        for (held += bits; held >= 8; held -= 8)
            *packed++ = static_cast<uint8_t>(pending >> (held - 8));
    }
    if (held > 0)
        *packed = static_cast<uint8_t>(pending << (8 - held));
}

void unpack_tokens(const uint8_t *packed, size_t count, uint32_t bits, uint16_t *tokens) {
    const uint32_t mask = (1u << bits) - 1;
    uint32_t pending = 0;
    uint32_t held = 0;
    for (size_t i = 0; i < count; ++i) {
        for (; held < bits; held += 8)
            pending = (pending << 8) | *packed++;
        held -= bits;
        tokens[i] = static_cast<uint16_t>((pending >> held) & mask);
    }
}

} // namespace dlf
