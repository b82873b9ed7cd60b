#include "entropy/vq.h"

#include <algorithm>
#include <cmath>

#include "entropy/tokens.h"
#include "support/failure.h"

namespace dlf {

void vq_lookup(const EntropyModel &model, const float *z, size_t tiles, uint16_t *tokens) {
    const size_t dim = model.codebook_dim;
    require(std::all_of(z, z + tiles * dim * kTokensPerTile, [](float value) { return std::isfinite(value); }),
            DLF_ERROR_INVALID_ARGUMENT);
    // For unit vectors the smallest distance is the largest dot product, |a - b|^2 = 2 - 2ab. The length of z scales all its dot
    // products equally, so z is not normalised. A tile's 32 tokens are computed together, so that the sums vectorise.
    for (size_t tile = 0; tile < tiles; ++tile, z += dim * kTokensPerTile, tokens += kTokensPerTile) {
        double best[kTokensPerTile];
        for (size_t entry = 0; entry < model.codebook_size; ++entry) {
            const float *vector = &model.codebook[entry * dim];
            double dot[kTokensPerTile] = {};
            for (size_t i = 0; i < dim; ++i)
                for (size_t t = 0; t < kTokensPerTile; ++t)
                    dot[t] += double{vector[i]} * double{z[i * kTokensPerTile + t]};
            for (size_t t = 0; t < kTokensPerTile; ++t) {
                if (entry == 0 || dot[t] > best[t]) {
                    best[t] = dot[t];
                    tokens[t] = static_cast<uint16_t>(entry);
                }
            }
        }
    }
}

void vq_embed(const EntropyModel &model, const uint16_t *tokens, size_t tiles, float *z_hat) {
    const size_t dim = model.codebook_dim;
    require(std::all_of(tokens, tokens + tiles * kTokensPerTile, [&](uint16_t token) { return token < model.codebook_size; }),
            DLF_ERROR_STREAM_CORRUPT);
    for (size_t tile = 0; tile < tiles; ++tile, tokens += kTokensPerTile, z_hat += dim * kTokensPerTile)
        for (size_t t = 0; t < kTokensPerTile; ++t)
            for (size_t i = 0; i < dim; ++i)
                z_hat[i * kTokensPerTile + t] = model.codebook[tokens[t] * dim + i];
}

} // namespace dlf
