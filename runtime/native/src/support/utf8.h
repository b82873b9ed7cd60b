// Text for people.
#pragma once

#include <string>

namespace dlf {

// `text` as UTF-8 without control characters other than ends of lines: what else came in from a hostile file becomes '?'.
std::string printable(std::string text);

} // namespace dlf
