// A stand-in for libcuda.so.1, whose GPU is host memory: work on a stream is done as it is put there. It refuses what a GPU
// would: calls without a current context, and copies beyond a buffer.
#include "fake_cuda.h"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <mutex>

#include "backends/cuda_api.h"

using namespace dlf::cuda;

namespace {

constexpr Result kInvalidValue = 1, kInvalidContext = 201, kLaunchFailed = 719;

std::mutex mutex;
std::map<Address, size_t> buffers;
int contexts = 0, streams = 0;
thread_local int depth = 0;

CUctx_st *context() { return reinterpret_cast<CUctx_st *>(&contexts); }

Result refusal(const char *function) {
    if (has_to_fail(function))
        return std::strcmp(function, "cuMemAlloc_v2") == 0 ? kOutOfMemory : kLaunchFailed;
    return depth > 0 ? 0 : kInvalidContext;
}

} // namespace

extern "C" {

bool fake_cuda_is_current() { return depth > 0; }

bool fake_cuda_has(const void *address, size_t size) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = buffers.find(reinterpret_cast<Address>(address));
    return found != buffers.end() && size <= found->second;
}

int fake_cuda_live() { return contexts + streams + static_cast<int>(buffers.size()) + depth; }

Result cuInit(unsigned) { return 0; }

Result cuGetErrorString(Result error, const char **text) {
    *text = error == kLaunchFailed ? "unspecified launch failure" : "another failure";
    return 0;
}

Result cuDeviceGet(Device *device, int) {
    *device = 0;
    return has_to_fail("cuDeviceGet") ? 100 : 0;
}

Result cuDeviceGetName(char *name, int size, Device) {
    std::snprintf(name, static_cast<size_t>(size), "Fake L4");
    return 0;
}

Result cuDeviceGetAttribute(int *value, int attribute, Device) {
    *value = attribute == kComputeCapabilityMajor ? 8 : 9;
    return 0;
}

Result cuDevicePrimaryCtxRetain(CUctx_st **out, Device) {
    ++contexts;
    *out = context();
    return 0;
}

Result cuDevicePrimaryCtxRelease_v2(Device) {
    --contexts;
    return 0;
}

Result cuCtxPushCurrent_v2(CUctx_st *pushed) {
    depth += pushed == context() ? 1 : 0;
    return pushed == context() ? 0 : kInvalidContext;
}

Result cuCtxPopCurrent_v2(CUctx_st **) {
    --depth;
    return 0;
}

Result cuStreamCreate(CUstream_st **stream, unsigned) {
    if (const Result result = refusal("cuStreamCreate"); result != 0)
        return result;
    const std::lock_guard<std::mutex> lock(mutex);
    *stream = reinterpret_cast<CUstream_st *>(&streams);
    ++streams;
    return 0;
}

Result cuStreamSynchronize(CUstream_st *) { return refusal("cuStreamSynchronize"); }

Result cuStreamDestroy_v2(CUstream_st *) {
    const std::lock_guard<std::mutex> lock(mutex);
    --streams;
    return refusal("");
}

Result cuMemAlloc_v2(Address *address, size_t size) {
    if (const Result result = refusal("cuMemAlloc_v2"); result != 0)
        return result;
    const std::lock_guard<std::mutex> lock(mutex);
    *address = reinterpret_cast<Address>(std::aligned_alloc(512, (size + 511) / 512 * 512));
    buffers[*address] = size;
    return 0;
}

Result cuMemFree_v2(Address address) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (buffers.erase(address) == 0)
        return kInvalidValue;
    std::free(reinterpret_cast<void *>(address));
    return refusal("");
}

Result cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t size, CUstream_st *) {
    if (!fake_cuda_has(reinterpret_cast<void *>(to), size))
        return kInvalidValue;
    std::memcpy(reinterpret_cast<void *>(to), from, size);
    return refusal("cuMemcpyHtoDAsync_v2");
}

Result cuMemcpyDtoHAsync_v2(void *to, Address from, size_t size, CUstream_st *) {
    if (!fake_cuda_has(reinterpret_cast<void *>(from), size))
        return kInvalidValue;
    std::memcpy(to, reinterpret_cast<void *>(from), size);
    return refusal("cuMemcpyDtoHAsync_v2");
}
}
