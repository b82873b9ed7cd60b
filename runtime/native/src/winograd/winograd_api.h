/* The functions of winograd.cpp for dlf.runtime.backends.winograd, which makes them an operation of OpenVINO's. They are exported,
 * but no part of the C API. */
#ifndef DLF_WINOGRAD_API_H
#define DLF_WINOGRAD_API_H

#include <stddef.h>
#include <stdint.h>

#include "dlf.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One step. `kind`, a Kind of winograd.cpp, says what is computed from x, the map that goes through, and h, the one inside
 * a block. */
typedef struct dlf_level_step {
    int32_t kind;
    uint32_t inputs, outputs, groups; /* groups: of the GroupNorm before the convolution; 0 for none */
    float epsilon;
    const float *weight, *bias, *gamma, *beta; /* weight (outputs, inputs, 3, 3); (outputs, inputs) for kShortcut */
} dlf_level_step;

/* The instruction set that dlf_winograd_run would use; NULL: this processor has none that it is written for. */
DLF_API const char *dlf_winograd_isa(void) DLF_NOEXCEPT;

/* x (channels, height, width) through the steps to out (outputs of the last, its height, its width). All channels but the last
 * step's outputs are multiples of 32, height and width multiples of 4. Returns 0, or 1 when memory runs out. */
DLF_API int dlf_winograd_run(const dlf_level_step *steps, size_t count, const float *x, size_t channels, size_t height,
                             size_t width, float *out, size_t threads) DLF_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
