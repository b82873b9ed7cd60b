// The boxes of metadata behind the picture of a .dlf file: section 1 of docs/format.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <vector>

#include "dlf.h"

namespace dlf {

constexpr size_t kMaxMetadata = 65536; // bytes of a kind

// Reads boxes and checks them; `metadata` receives where those of known kinds are. Throws a Failure.
void read_boxes(const uint8_t *boxes, size_t size, dlf_metadata &metadata);

// Appends the boxes of what there is; nothing where there is none. Throws a Failure.
void write_boxes(const dlf_metadata &metadata, std::pmr::vector<uint8_t> &out);

} // namespace dlf
