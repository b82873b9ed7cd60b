// The integer four-part prior: section 3 of docs/format.md. This plain code is its definition; others must equal it bit by bit.
#pragma once

#include "entropy_model.h"

namespace dlf {

// CDF indexes (-1: not coded) and means (1/256) of a step (0 to 3), for every channel and position.
//  r                the reconstruction so far, [channels][height][width] in 1/256, 0 where nothing is coded; not read at step 0
//  indexes, means   receive [channels][height][width]
void prior_step(const EntropyModel &model, size_t step, const int32_t *r, size_t height, size_t width, int16_t *indexes,
                int16_t *means);

} // namespace dlf
