#include "entropy/prior_kernels.h"

#include <cstdlib>
#include <cstring>

#include "support/failure.h"

namespace dlf {
namespace {

struct Available {
    const PriorKernels *tables[4] = {};

    Available() {
        const PriorKernels **next = tables;
#if defined(__x86_64__)
        if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni"))
            *next++ = &kAvx512Kernels;
        if (__builtin_cpu_supports("avx2"))
            *next++ = &kAvx2Kernels;
#elif defined(__aarch64__)
        *next++ = &kNeonKernels; // part of the architecture
#elif defined(__wasm__)
        *next++ = &kSimd128Kernels; // a page that lacks it cannot load the module
#endif
        *next = &kScalarKernels;
    }
};

} // namespace

const PriorKernels *const *available_kernels() {
    static const Available available;
    return available.tables;
}

const PriorKernels &choose_kernels() {
    const PriorKernels *const *next = available_kernels();
    if (const char *isa = std::getenv("DLF_ISA")) {
        while (*next != nullptr && std::strcmp((*next)->isa, isa) != 0)
            ++next;
        require(*next != nullptr, DLF_ERROR_INVALID_ARGUMENT);
    }
    return **next;
}

} // namespace dlf
