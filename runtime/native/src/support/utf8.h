// Text for messages.
#pragma once

#include <string>

namespace dlf {

// `text` as UTF-8 without control characters other than ends of lines: other bytes, from a hostile file, become '?'.
std::string printable(std::string text);

} // namespace dlf
