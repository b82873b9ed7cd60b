/* The generator's levels for dlf.runtime.libdlf, whose stages run in Python. Exported, but no part of the C API. */
#ifndef DLF_LEVELS_API_H
#define DLF_LEVELS_API_H

#include <stddef.h>
#include <stdint.h>

#include "dlf.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dlf_levels dlf_levels;

/* The instruction set that computes levels; NULL: this processor has none that they are written for. */
DLF_API const char *dlf_levels_isa(void) DLF_NOEXCEPT;

/* Load the levels of a bundle. *out receives NULL where the bundle lists none, or none that can be computed here.
 *  threads   at most so many work on an image; 0: one for each processor that may be used
 * Returns DLF_OK, INVALID_ARGUMENT, OUT_OF_MEMORY, BUNDLE_BROKEN; dlf_bundle_message says why. */
DLF_API dlf_result dlf_levels_open(dlf_bundle *bundle, uint32_t threads, dlf_levels **out) DLF_NOEXCEPT;
DLF_API void dlf_levels_free(dlf_levels *levels) DLF_NOEXCEPT; /* NULL is allowed */

/* The stage whose output "base" enters them, and the channels of that map. */
DLF_API const char *dlf_levels_stage(const dlf_levels *levels) DLF_NOEXCEPT;
DLF_API uint32_t dlf_levels_channels(const dlf_levels *levels) DLF_NOEXCEPT;

/* base (channels, height, width), sides that 4 divides, to image (3, 16 height, 16 width). Several may run at the same time.
 * Returns DLF_OK, OUT_OF_MEMORY. */
DLF_API dlf_result dlf_levels_run(const dlf_levels *levels, const float *base, size_t height, size_t width,
                                  float *image) DLF_NOEXCEPT;

/* How many processors this process may use. `root` is put before the paths of /proc and /sys. */
DLF_API uint32_t dlf_usable_processors(const char *root) DLF_NOEXCEPT;

/* How many bytes of memory it may use; UINT64_MAX where the system does not say. */
DLF_API uint64_t dlf_usable_memory(const char *root) DLF_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
