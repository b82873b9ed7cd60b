// The .dlf file: section 1 of docs/format.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "dlf.h"

namespace dlf {

// Reads and checks a file's header and checksum. `info` is filled as far as parsing went, also when this throws a Failure.
void parse_file(const uint8_t *data, size_t size, const dlf_limits &limits, dlf_file_info &info);

// The file of a header (its width, height, fingerprint, token_bits and has_checksum), its tokens and its detail stream.
std::vector<uint8_t> write_file(const dlf_file_info &info, const uint16_t *tokens, const uint8_t *detail, size_t detail_size);

} // namespace dlf
