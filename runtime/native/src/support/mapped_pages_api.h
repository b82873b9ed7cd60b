/* MappedPagesReleased for dlf.runtime.backends.openvino. These functions are exported, but no part of the C API. */
#ifndef DLF_MAPPED_PAGES_API_H
#define DLF_MAPPED_PAGES_API_H

#include "dlf.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Begin to keep a model's files out of memory. Returns what ends it, or NULL, by which nothing is ended. */
DLF_API void *dlf_mapped_pages_begin(const char *file) DLF_NOEXCEPT;
DLF_API void dlf_mapped_pages_end(void *begun) DLF_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
