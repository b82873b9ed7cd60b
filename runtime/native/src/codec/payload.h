// What follows a file's header, tokens and detail, as a model codes them: packed tokens and the detail stream, or one stream of both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <optional>
#include <vector>

#include "codec/container.h"
#include "entropy/entropy_model.h"
#include "support/formats.h"

namespace dlf {

// `out` receives the file of a header (its width, height, fingerprint and has_checksum), its tokens, which are in the codebook, and
// its detail stream, which is not in `out`. `scratch` is overwritten.
void write_file(const EntropyModel &model, dlf_file_info info, const uint16_t *tokens, const uint8_t *detail, size_t detail_size,
                std::pmr::vector<uint8_t> &scratch, std::pmr::vector<uint8_t> &out);

// Reads the tokens of a file that was parsed as `info`, in the form of the model's files. Returns the decoder of its detail stream, or
// none for a preview. Throws a Failure.
std::optional<RansDecoder> read_tokens(const EntropyModel &model, const dlf_file_info &info, const uint8_t *file, Extent extent,
                                       uint16_t *tokens);

// The most bytes that the file of an image of so many tiles can have.
size_t file_bound(const EntropyModel &model, size_t down, size_t across);

} // namespace dlf
