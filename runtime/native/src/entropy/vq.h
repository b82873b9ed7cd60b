// Vector quantisation of the semantic latent on the unit sphere.
#pragma once

#include "entropy/entropy_model.h"

namespace dlf {

// z (tiles, codebook_dim, 32) -> tokens (tiles, 32). Throws a Failure if z is not finite.
void vq_lookup(const EntropyModel &model, const float *z, size_t tiles, uint16_t *tokens);

// tokens (tiles, 32), untrusted -> z_hat (tiles, codebook_dim, 32).
void vq_embed(const EntropyModel &model, const uint16_t *tokens, size_t tiles, float *z_hat);

} // namespace dlf
