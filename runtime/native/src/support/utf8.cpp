#include "support/utf8.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace dlf {
namespace {

// Returns how many bytes the character at `at` has, 0 if it is invalid; section 4 of RFC 3629.
size_t character_bytes(const std::string &text, size_t at) {
    const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0}; };
    const uint8_t first = byte(at), second = byte(at + 1);
    if (first < 0x80)
        return (first >= 0x20 && first != 0x7F) || first == '\n' ? 1 : 0;
    const size_t count = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    for (size_t i = 1; i < count; ++i)
        if ((byte(at + i) & 0xC0) != 0x80)
            return 0;
    const bool longer_than_needed = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
    const bool no_character = (first == 0xED && second >= 0xA0) || (first == 0xF4 && second >= 0x90);
    return longer_than_needed || no_character ? 0 : count;
}

} // namespace

std::string printable(std::string text) {
    for (size_t at = 0; at < text.size();) {
        const size_t count = character_bytes(text, at);
        if (count == 0)
            text[at] = '?';
        at += std::max<size_t>(count, 1);
    }
    return text;
}

} // namespace dlf
