// The detail latent's stream: four steps of prior and coder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <vector>

#include "entropy/entropy_model.h"
#include "entropy/prior.h"

namespace dlf {

// The memory for coding one image, reused for the next.
struct DetailScratch {
    explicit DetailScratch(std::pmr::memory_resource *memory = std::pmr::new_delete_resource())
        : prior(memory), symbols(memory), indexes(memory), means(memory), stream(memory) {}

    PriorRunner prior;
    std::pmr::vector<int32_t> symbols; // [4][C/4][height][width], as the stream has them
    std::pmr::vector<int16_t> indexes; // likewise
    std::pmr::vector<int16_t> means;   // of one step, [C/4][height][width]
    std::pmr::vector<uint8_t> stream;
};

// Quantises and codes y, [channels][height][width]; y_hat (may be NULL) receives the decoder's reconstruction.
// Returns the stream's size; the stream is the last bytes of scratch.stream. Throws a Failure if y is not finite.
size_t encode_detail(const EntropyModel &model, const float *y, size_t height, size_t width, float *y_hat,
                     DetailScratch &scratch);

// Returns the largest size in bytes that the stream of a map can have.
size_t detail_bound(const EntropyModel &model, size_t height, size_t width);

// Decodes an untrusted stream, to its end, to y_hat.
void decode_detail(const EntropyModel &model, RansDecoder decoder, size_t height, size_t width, float *y_hat,
                   DetailScratch &scratch);

} // namespace dlf
