#include "backends/order.h"

#include <sstream>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "backends/order_api.h"

namespace {

// Of a model of the released size; docs/bench.md has the figures. Those on a GPU are last, since dlf's code for them has not run on
// one yet: they are for those who ask for them or have nothing else. Their order is an expectation. onnxruntime-tensorrt is of
// Python alone.
#define ON_GPU                                                                                                                   \
    " tensorrt fp16 tensorrt int8 tensorrt fp32"                                                                                 \
    " onnxruntime-tensorrt fp16 onnxruntime-tensorrt int8 onnxruntime-tensorrt fp32"
constexpr const char *kWithDotProducts = "openvino int8 onnxruntime int8 openvino fp32 openvino fp16 "
                                         "onnxruntime fp32 onnxruntime fp16" ON_GPU;
constexpr const char *kWithoutDotProducts = "onnxruntime int8 openvino fp32 openvino fp16 openvino int8 "
                                            "onnxruntime fp32 onnxruntime fp16" ON_GPU;
#undef ON_GPU

} // namespace

int dlf_has_int8_dot_products(void) noexcept {
#if defined(__x86_64__)
    constexpr unsigned kAvxVnni = 1u << 4;
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __builtin_cpu_supports("avx512vnni") ||
           (__builtin_cpu_supports("avx2") && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & kAvxVnni) != 0);
#elif defined(__aarch64__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
    return 0;
#endif
}

const char *dlf_backend_order(int dot_products) noexcept { return dot_products != 0 ? kWithDotProducts : kWithoutDotProducts; }

std::vector<std::string> dlf::precisions_of(const std::string &backend) {
    std::istringstream order(dlf_backend_order(dlf_has_int8_dot_products()));
    std::vector<std::string> found;
    for (std::string name, precision; order >> name >> precision;)
        if (name == backend)
            found.push_back(precision);
    return found.empty() ? std::vector<std::string>{"fp32", "fp16", "int8"} : found;
}
