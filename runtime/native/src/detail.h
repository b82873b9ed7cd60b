// The detail latent's stream: four steps of prior and coder.
#pragma once

#include <cstdint>
#include <vector>

#include "entropy_model.h"

namespace dlf {

// Quantises and codes y, [channels][height][width]; y_hat (may be NULL) receives what the decoder will see.
// Throws a Failure where y is not finite.
std::vector<uint8_t> encode_detail(const EntropyModel &model, const float *y, size_t height, size_t width, float *y_hat);

// The inverse, from untrusted bytes.
void decode_detail(const EntropyModel &model, const void *data, size_t size, size_t height, size_t width, float *y_hat);

} // namespace dlf
