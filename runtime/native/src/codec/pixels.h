// Pixels: 8-bit rows in, the float batch that the stages work on, and back.
#pragma once

#include <cstddef>
#include <cstdint>

#include "support/aligned.h"
#include "support/formats.h"

namespace dlf {

// height rows of width pixels, `channels` bytes each, 3 or 1 -> batch [3][H][W] in -1..1, the last column and row repeated up to
// whole tiles. One channel becomes three equal ones.
void pad_to_tiles(const uint8_t *pixels, size_t stride, size_t channels, uint32_t height, uint32_t width,
                  AlignedVector<float> &batch);

// batch [3][H][W] of finite values -> the upper left height rows of width RGB pixels, -1..1 as 0..255, rounded and clipped.
void crop_to_pixels(const float *batch, uint32_t height, uint32_t width, uint8_t *pixels, size_t stride);

} // namespace dlf
