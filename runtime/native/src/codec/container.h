// The .dlf file: section 1 of docs/format.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <string>
#include <vector>

#include "dlf.h"

namespace dlf {

constexpr uint32_t kMaxSide = 1u << 21; // which a varint of three bytes can hold
constexpr dlf_limits kNoLimits = {sizeof(dlf_limits), UINT64_MAX, UINT32_MAX};
constexpr size_t kFrameBytes = 12; // of header and checksum without metadata, at most

// Four hexadecimal digits.
std::string fingerprint_text(uint32_t fingerprint);

// Refuses an image over the limits. Throws a Failure.
void check_size(uint32_t width, uint32_t height, const dlf_limits &limits);

// How much of a file is read: of a preview only the header and the tokens; what follows may be cut off or damaged.
enum class Extent { whole, preview };

// Reads and checks a file's header and, of a whole file, its checksum. `info` is filled as far as parsing went, also when this
// throws a Failure, whose message tells the fact and the remedy.
void parse_file(const uint8_t *data, size_t size, const dlf_limits &limits, Extent extent, dlf_file_info &info);

// The same; `metadata` receives where those of a whole file are.
void parse_file(const uint8_t *data, size_t size, const dlf_limits &limits, Extent extent, dlf_file_info &info,
                dlf_metadata &metadata);

// `out` receives the file of a header (its width, height, fingerprint, token_bits, has_checksum and coded_tokens), its tokens and its
// detail stream, which is not in `out`. Coded tokens are NULL, and the stream is that of both.
void write_file(const dlf_file_info &info, const uint16_t *tokens, const uint8_t *detail, size_t detail_size,
                std::pmr::vector<uint8_t> &out);

// `out` receives a file with other metadata, or with none. Throws a Failure.
void replace_metadata(const uint8_t *data, size_t size, const dlf_metadata &metadata, std::pmr::vector<uint8_t> &out);

} // namespace dlf
