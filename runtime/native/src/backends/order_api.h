/* The functions of order.cpp for dlf.runtime.backends.choice. They are exported, but no part of the C API. */
#ifndef DLF_ORDER_API_H
#define DLF_ORDER_API_H

#include "dlf.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether this processor multiplies int8 much faster than fp32: 0 or 1. (An x86 processor without VNNI has to add up in 16 bits in
 * between.) */
DLF_API int dlf_has_int8_dot_products(void) DLF_NOEXCEPT;

/* Each backend with each precision of bundles, as "BACKEND PRECISION BACKEND PRECISION ...", the fastest first, on processors with
 * int8 dot products or without; a static string. */
DLF_API const char *dlf_backend_order(int dot_products) DLF_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
